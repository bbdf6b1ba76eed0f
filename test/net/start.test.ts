// A daemon that cannot start: one clear sentence, a status, and nothing left behind.

import assert from 'node:assert/strict';
import { existsSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { type Host, Network } from '../../cli/lab/network.ts';
import { eventually, type Result } from '../../cli/lab/process.ts';
import { links, MAIN, uvxlan, uvxlanUp } from '../../cli/lab/vtep.ts';
import { ping } from './ping.ts';
import { Listener } from './raw.ts';
import { lacking } from './requirements.ts';
import { traces } from './traces.ts';

const options = { skip: lacking('tun', 'kernel-vxlan'), timeout: 180_000 };
const UP = 'up flannel.1 id 1 local 192.0.2.1 dev eth0 dstport 8472';

function alone(t: TestContext): Host {
  const network = Network.build(t, {
    hosts: { left: {}, right: {} },
    links: [['left eth0 192.0.2.1/24', 'right eth0']],
  });
  return network.host('left');
}

function refused({ status, stdout, stderr }: Result, sentence: RegExp, expected = 1): void {
  assert.match(stderr, sentence);
  assert.equal(stderr.split('\n').length, 2, `one line: ${stderr}`);
  assert.match(stderr, /^uvxlan: /);
  assert.doesNotMatch(stderr, /\n +at |undefined|\[object/);
  assert.equal(stdout, '');
  assert.equal(status, expected);
}

/** What is wrong with the host or the words; `arrange` makes it so. */
const CASES: Record<string, { arrange?: (host: Host) => unknown; words?: string; says: RegExp; status?: number }> = {
  'a device of that name exists': {
    arrange: (host) => host.ip('link add flannel.1 type bridge'),
    says: /flannel\.1.*EBUSY; a device of that name exists: choose another name .*ip link show flannel\.1/,
  },
  'the port is held by the kernel’s vxlan': {
    arrange: (host) =>
      host.ip('link add vx type vxlan id 9 local 192.0.2.1 dev eth0 dstport 8472').concat(host.ip('link set vx up')),
    says: /port 8472 is held by .*'dstport'/,
  },
  'the port is held by another process': {
    arrange: (host) => Listener.datagrams(host, 8472),
    says: /port 8472 is held by .*'ss -ulnp sport = :8472'/,
  },
  'no such NIC': { words: UP.replace('eth0', 'eth7'), says: /Cannot find device "eth7"/ },
  'an address of another host': {
    words: UP.replace('192.0.2.1', '192.0.2.77'),
    says: /192\.0\.2\.77|not one of this host's/,
  },
  'no NIC and no address': { words: 'up flannel.1 id 1 dstport 8472', says: /dev NIC/ },
  'a VNI out of range': {
    words: UP.replace('id 1', 'id 16777216'),
    says: /16777216.* is out of range 0\.\.16777215/,
    status: 2,
  },
  'no VNI': { words: UP.replace('id 1 ', ''), says: /id N/, status: 2 },
  'a wrong word': { words: `${UP} uplnk udp`, says: /unknown word "uplnk", did you mean "uplink"\?/, status: 2 },
  'a wrong address': {
    words: UP.replace('192.0.2.1', '192.0.2.256'),
    says: /192\.0\.2\.256.* is not an IP address/,
    status: 2,
  },
  'a name that is too long': { words: UP.replace('flannel.1', 'flannel.10000000'), says: /15 bytes/, status: 2 },
};

test('a start that fails', options, async (t) => {
  for (const [name, { arrange, words = UP, says, status }] of Object.entries(CASES)) {
    await t.test(name, async (t) => {
      const host = alone(t);
      await arrange?.(host);
      const before = traces(host);
      refused(await uvxlan(host, words, { check: false }), says, status);
      assert.deepEqual(traces(host), before);
    });
  }
});

test('the machine lacks something', options, async (t) => {
  const up = [process.execPath, MAIN, ...UP.split(' ')];
  const lacks = {
    '/dev/net/tun': {
      command: ['unshare', '-m', 'sh', '-c', 'mount -t tmpfs none /dev/net && exec "$@"', 'sh', ...up],
      says: /\/dev\/net\/tun: open: ENOENT; .*modprobe tun/,
    },
    CAP_NET_ADMIN: {
      command: ['setpriv', '--bounding-set', '-all', '--inh-caps', '-all', '--', ...up],
      says: /EPERM.*CAP_NET_ADMIN: run as root/,
    },
  };
  for (const [what, { command, says }] of Object.entries(lacks)) {
    await t.test(what, async (t) => {
      const host = alone(t);
      const before = traces(host);
      refused(await host.run(command, { check: false }), says);
      assert.deepEqual(traces(host), before);
    });
  }
});

test('a configuration with mistakes names each, and changes nothing that runs', options, async (t) => {
  const host = alone(t);
  const daemon = await uvxlanUp(host, UP.slice(3));
  const before = traces(host);
  const file = join(host.directory, 'uvxlan.yaml');
  writeFileSync(
    file,
    `devices:
  - name: flannel.2
    id: 16777216
    locl: 192.0.2.1
    fdb:
      - { mac: "02:00:00:00:00", dst: 192.0.2.2 }
`,
  );
  const { status, stderr } = await uvxlan(host, `up --config ${file}`, { check: false });
  assert.equal(status, 2);
  const lines = stderr.trimEnd().split('\n');
  assert.match(lines[0]!, /uvxlan\.yaml:3:9: devices\[0\]\.id: 16777216 is out of range 0\.\.16777215/);
  assert.match(lines[1]!, /uvxlan\.yaml:4:5: devices\[0\]\.locl: unknown key, did you mean local\?/);
  assert.match(lines[2]!, /uvxlan\.yaml:6:16: devices\[0\]\.fdb\[0\]\.mac: .* is not a MAC address/);
  assert.equal(lines.length, 3);
  assert.deepEqual(traces(host), before);
  assert.equal(daemon.exit, undefined);
  assert.match((await uvxlan(host, 'link show')).stdout, /flannel\.1/);
});

test('a configuration file: several devices, and their entries', options, async (t) => {
  const host = alone(t);
  const file = join(host.directory, 'uvxlan.yaml');
  writeFileSync(
    file,
    `devices:
  - name: vx1
    id: 1
    local: 192.0.2.1
    dev: eth0
    dstport: 8472
    fdb:
      - { mac: "00:00:00:00:00:00", dst: 192.0.2.2 }
      - { mac: "00:00:00:00:00:00", dst: 192.0.2.3 }
  - name: vx2
    id: 2
    local: 192.0.2.1
    dev: eth0
    dstport: 8472
`,
  );
  await uvxlanUp(host, `--config ${file}`, /vx2 is up/);
  assert.equal(
    (await uvxlan(host, 'fdb show')).stdout,
    '00:00:00:00:00:00 dev vx1 dst 192.0.2.2 self permanent\n00:00:00:00:00:00 dev vx1 dst 192.0.2.3 self permanent\n',
  );
});

test('a remote makes a tunnel without further entries; auto says what it takes', options, async (t) => {
  const network = Network.build(t, {
    hosts: { left: {}, right: {} },
    links: [['left eth0 192.0.2.1/24', 'right eth0 192.0.2.2/24']],
  });
  const [left, right] = [network.host('left'), network.host('right')];
  const daemon = await uvxlanUp(left, 'vx0 type vxlan id 42 remote 192.0.2.2 dev eth0 dstport 4789 ttl 9');
  assert.match(
    daemon.stdout,
    /^uvxlan: vx0 is up: id 42, local 192\.0\.2\.1, dev eth0, uplink (redirect|udp) \(.+\), \d workers?, mtu 1450$/m,
  );
  right.ip('link add vx0 type vxlan id 42 remote 192.0.2.1 dev eth0 dstport 4789');
  right.ip('link set vx0 up');
  left.ip('address add 10.9.0.1/24 dev vx0');
  right.ip('address add 10.9.0.2/24 dev vx0');
  await eventually('both know each other', async () => (await ping(left, '10.9.0.2', { count: 1 })).received === 1);
  const [link] = await links(left);
  const { id, remote, local, link: dev, port, ttl, learning, udp_csum } = link!.linkinfo.info_data;
  assert.deepEqual(
    { id, remote, local, dev, port, ttl, learning, udp_csum },
    {
      id: 42,
      remote: '192.0.2.2',
      local: '192.0.2.1',
      dev: 'eth0',
      port: 4789,
      ttl: 9,
      learning: true,
      udp_csum: true,
    },
  );
  const shown = (await uvxlan(left, 'fdb show dev vx0')).stdout.split('\n');
  assert.ok(shown.includes('00:00:00:00:00:00 dst 192.0.2.2 self permanent'), shown.join('\n'));
});

test(
  'a log as JSON: each line an object, the token of the page in none, and why the daemon cannot start',
  options,
  async (t) => {
    const host = alone(t);
    const daemon = await uvxlanUp(
      host,
      `${UP.slice('up '.length)} --log-format json --web 0.0.0.0:0`,
      /flannel\.1 is up/,
    );
    const records = daemon.stdout
      .split('\n')
      .slice(0, -1)
      .map((line) => JSON.parse(line));
    for (const { time, level, msg } of records) {
      assert.ok(Math.abs(Date.parse(time) - Date.now()) < 60_000, time);
      assert.ok(['info', 'warn'].includes(level) && typeof msg === 'string', level);
    }
    assert.equal(records.find(({ msg }) => msg.startsWith('flannel.1 is up')).device, 'flannel.1');
    const page = records.find(({ msg }) => msg.startsWith('the page is at')).msg as string;
    const [, port, file] = /:(\d+)\/\?token=\.\.\., that of (\S+)$/.exec(page)!;
    assert.equal(statSync(file!).mode & 0o777, 0o600);
    const token = readFileSync(file!, 'latin1').trim();
    assert.ok(token.length > 20 && !daemon.output.includes(token));
    const script = `fetch('http://127.0.0.1:${port}/api/drops?token=${token}', { redirect: 'manual' }).then((r) => console.log(r.status))`;
    assert.equal((await host.run([process.execPath, '-e', script])).stdout.trim(), '303');
    const second = await uvxlan(host, `${UP} --log-format json`, { check: false });
    assert.equal(second.status, 1);
    assert.equal(second.stderr, '');
    const { level, msg } = JSON.parse(second.stdout.trim().split('\n').at(-1)!);
    assert.equal(level, 'error');
    assert.match(msg, /another daemon|serves/);
    await daemon.stop('SIGTERM');
    assert.ok(!existsSync(file!), 'the token goes with the daemon');
  },
);
