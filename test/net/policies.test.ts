// Needs root: firewall rules and IPsec policies of network namespaces of its own.
//
//   left eth0 192.0.2.1 2001:db8::1 ------ right eth0 192.0.2.2 2001:db8::2

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, symlinkSync } from 'node:fs';
import test, { type TestContext } from 'node:test';
import { type Host as LabHost, Network } from '../../cli/lab/network.ts';
import { eventually } from '../../cli/lab/process.ts';
import { links, tell, uvxlanUp, uvxlanVtep } from '../../cli/lab/vtep.ts';
import { Host } from '../../control/host.ts';
import { findPolicies, judged, policySentence, readRules, type Tunnel } from '../../control/policies.ts';
import { type PolicyChange, PolicyWatch } from '../../control/policy-watch.ts';
import { SystemError } from '../../system/libc.ts';
import { frame, Listener, sendDatagrams, sendFrames } from './raw.ts';
import { lacking } from './requirements.ts';

const skip = lacking('iptables') || (spawnSync('nft', ['--version']).status !== 0 && 'needs nft');

const TUNNEL: Tunnel = {
  nic: 'eth0',
  local: '192.0.2.1',
  port: 8472,
  sourcePorts: [32768, 61000],
  remotes: ['192.0.2.2'],
};
const TUNNEL6: Tunnel = { ...TUNNEL, local: '2001:db8::1', remotes: ['2001:db8::2'] };

function build(t: TestContext) {
  const network = Network.build(t, {
    hosts: { left: {}, right: {} },
    links: [['left eth0 192.0.2.1/24 2001:db8::1/64', 'right eth0 192.0.2.2/24 2001:db8::2/64']],
  });
  const left = network.host('left');
  const host = new Host(left.inside([]));
  const verdicts = async (tunnel = TUNNEL) =>
    (await findPolicies(host, tunnel)).policies.map((policy) => policySentence(policy, 8472));
  return { network, left, right: network.host('right'), host, verdicts };
}

async function nft(host: LabHost, ruleset: string): Promise<void> {
  await host.run('nft -f -', { input: `flush ruleset\n${ruleset}` });
}

const INPUT = 'type filter hook input priority 0;';

test('a host without rules', { skip }, async (t) => {
  const { host } = build(t);
  assert.deepEqual(await findPolicies(host, TUNNEL), { policies: [], notes: [] });
});

test('rules of nftables, with sets, maps and jumps', { skip }, async (t) => {
  const { left, verdicts } = build(t);
  await nft(left, `table inet filter { chain input { ${INPUT} policy drop; }; }`);
  assert.deepEqual(await verdicts(), ["nftables inet filter input drops incoming UDP 8472: 'policy drop'"]);
  assert.deepEqual(await verdicts(TUNNEL6), await verdicts());
  const table = (port: number) => `table inet filter {
    set peers { type ipv4_addr; flags interval; elements = { 192.0.2.2, 198.51.100.0/24 }; }
    map ports { type inet_service : verdict; elements = { ${port} : jump vxlan, 22 : accept }; }
    chain vxlan { ip saddr @peers counter accept; }
    chain input {
      ${INPUT} policy drop;
      ct state vmap { established : accept, related : accept, invalid : drop }
      iif lo accept
      udp dport vmap @ports
      tcp dport { 22, 80 } accept
    }
  }`;
  await nft(left, table(8472));
  assert.deepEqual(await verdicts(), []);
  assert.equal((await verdicts(TUNNEL6)).length, 1);
  await nft(left, table(4789));
  assert.equal((await verdicts()).length, 1);
});

test('an ingress chain is judged by its device', { skip }, async (t) => {
  const { left, verdicts } = build(t);
  const chain = (device: string) =>
    `table netdev n { chain in { type filter hook ingress device "${device}" priority 0; udp dport 8472 drop; }; }`;
  await nft(left, chain('lo'));
  assert.deepEqual(await verdicts(), []);
  await nft(left, chain('eth0'));
  assert.deepEqual(await verdicts(), ["nftables netdev n in drops incoming UDP 8472: 'udp dport 8472 drop'"]);
});

test('extensions of iptables, which nft does not spell out', { skip }, async (t) => {
  const { left, verdicts } = build(t);
  left.exec('iptables -A INPUT -p udp -m multiport --dports 4789,8472 -m conntrack --ctstate NEW -j REJECT');
  left.exec('ip6tables -P INPUT DROP');
  left.exec('ip6tables -A INPUT -p udp -m multiport --dports 8472,4789 -j ACCEPT');
  assert.deepEqual(await verdicts(), [
    "iptables filter INPUT rejects incoming UDP 8472: '-A INPUT -p udp -m multiport --dports 4789,8472 " +
      "-m conntrack --ctstate NEW -j REJECT --reject-with icmp-port-unreachable'",
  ]);
  assert.deepEqual(await verdicts(TUNNEL6), []);
});

test('a table that nft has changed, which iptables refuses', { skip }, async (t) => {
  const { left, verdicts } = build(t);
  left.exec('iptables -A INPUT -m u32 --u32 0=1 -j ACCEPT');
  left.exec('iptables -t mangle -A INPUT -p udp -m multiport ! --dports 8472 -j DROP');
  left.exec(['nft', 'add rule ip filter INPUT ct state vmap { established : accept, new : drop }']);
  assert.deepEqual(await verdicts(), [
    "nftables ip filter INPUT may drop incoming UDP 8472: 'ct state vmap { established : accept, new : drop }'",
  ]);
});

test('legacy iptables, beside nftables', { skip }, async (t) => {
  const { left, verdicts } = build(t);
  left.exec('iptables-legacy -A OUTPUT -p udp -m udp --dport 8472 -j DROP');
  left.exec('iptables-legacy -t mangle -A POSTROUTING -p tcp -j TTL --ttl-set 1');
  left.exec('ip6tables-legacy -A INPUT -i lo -j DROP');
  left.exec('iptables -A INPUT -p icmp -j DROP');
  assert.deepEqual(await verdicts(), [
    "iptables filter OUTPUT drops outgoing UDP 8472: '-A OUTPUT -p udp -m udp --dport 8472 -j DROP'",
  ]);
  assert.deepEqual(await verdicts(TUNNEL6), []);
});

test('IPsec policies', { skip }, async (t) => {
  const { left, verdicts } = build(t);
  const template = 'tmpl src 192.0.2.1 dst 192.0.2.2 proto esp mode transport';
  left.ip(`xfrm policy add src 10.0.0.0/8 dst 10.0.0.0/8 dir out ${template}`);
  left.ip(`xfrm policy add src 192.0.2.1 dst 192.0.2.2 dir out mark 7 ${template}`);
  assert.deepEqual(await verdicts(), []);
  left.ip(`xfrm policy add src 192.0.2.1 dst 192.0.2.2 proto udp dport 8472 dir out ${template}`);
  left.ip('xfrm policy add src 192.0.2.0/24 dst 192.0.2.1 dir in action block');
  assert.deepEqual(await verdicts(), [
    "xfrm policy out encrypts outgoing UDP 8472: 'src 192.0.2.1/32 dst 192.0.2.2/32 proto udp dport 8472 dir out " +
      "priority 0 ptype main tmpl src 192.0.2.1 dst 192.0.2.2 proto esp reqid 0 mode transport'",
    "xfrm policy in drops incoming UDP 8472: 'src 192.0.2.0/24 dst 192.0.2.1/32 dir in action block priority 0 ptype main'",
  ]);
});

test('a mark counts when a routing rule looks at it', { skip }, async (t) => {
  const { left, verdicts } = build(t);
  left.exec('iptables -t mangle -A OUTPUT -p udp -m udp --dport 8472 -j MARK --set-mark 5');
  assert.deepEqual(await verdicts(), []);
  left.ip('rule add fwmark 0x4/0x4 table 100');
  assert.deepEqual(await verdicts(), [
    "iptables mangle OUTPUT reroutes outgoing UDP 8472: '-A OUTPUT -p udp -m udp --dport 8472 -j MARK --set-xmark 0x5/0xffffffff'",
  ]);
});

test('what cannot be inspected is a note that says what to do', { skip }, async (t) => {
  const { network, left } = build(t);
  const bin = `${network.directory}/bin`;
  mkdirSync(bin);
  for (const tool of ['sh', 'ip', 'cat']) {
    symlinkSync(spawnSync('sh', ['-c', `command -v ${tool}`], { encoding: 'utf8' }).stdout.trim(), `${bin}/${tool}`);
  }
  left.exec('iptables-legacy -P INPUT DROP');
  const host = new Host([...left.inside([]), 'env', `PATH=${bin}`]);
  const { policies, notes } = await findPolicies(host, TUNNEL);
  assert.deepEqual(policies, []);
  assert.deepEqual([...notes].sort(), [
    'legacy iptables rules cannot be inspected: install iptables',
    'nftables rules (other than those of iptables) cannot be inspected: install nftables',
  ]);
  // With iptables alone, its rules are seen.
  for (const tool of ['iptables-save', 'ip6tables-save', 'iptables-legacy-save']) {
    symlinkSync(spawnSync('sh', ['-c', `command -v ${tool}`], { encoding: 'utf8' }).stdout.trim(), `${bin}/${tool}`);
  }
  left.exec('iptables-legacy -P INPUT ACCEPT');
  left.exec('iptables -P INPUT DROP');
  const again = await findPolicies(host, TUNNEL);
  assert.deepEqual(
    again.policies.map(({ where }) => where),
    ['iptables filter INPUT'],
  );
  assert.equal(again.notes.length, 1);
});

/** Datagrams to the VXLAN port, both ways, each on a connection of its own. */
function datagrams({ left, right }: { left: LabHost; right: LabHost }) {
  const end = (host: LabHost, address: string) => ({
    ...{ host, address },
    datagrams: Listener.datagrams(host, 8472),
    /** Frames past which no rule looks: when one has arrived, so has what was sent before it. */
    fences: Listener.frames(host, 'eth0', '88b5'),
  });
  const ends = [end(left, '192.0.2.1'), end(right, '192.0.2.2')] as const;
  const fence = frame('ff:ff:ff:ff:ff:ff', '02:00:00:00:00:01', '88b5', Buffer.alloc(50));
  let sent = 0;
  /** Whether one arrives, with the source that it was sent with. */
  const arrives = async (from: (typeof ends)[0], to: (typeof ends)[0]) => {
    const payload = Buffer.from(`datagram ${++sent}`);
    const fences = to.fences.received.length;
    try {
      sendDatagrams(from.host, to.address, [{ source: from.address, from: 40_000 + sent, to: 8472, payload }]);
    } catch (error) {
      if (!(error instanceof SystemError)) throw error;
      return false; // a rule of the sender's
    }
    sendFrames(from.host, 'eth0', [fence]);
    await to.fences.atLeast(fences + 1);
    const index = to.datagrams.received.indexOf(payload.toString('hex'));
    return index >= 0 && to.datagrams.sources[index] === from.address;
  };
  const out = () => arrives(ends[0], ends[1]);
  return { out, both: async () => (await out()) && (await arrives(ends[1], ends[0])) };
}

test('the kernel does with packets what is said of them', { skip }, async (t) => {
  const hosts = build(t);
  const { left, verdicts } = hosts;
  const pass = datagrams(hosts);
  const table: [string, 'input' | 'output' | 'prerouting' | 'postrouting'][] = [
    ['udp dport 8472 drop', 'input'],
    ['udp dport 4789 drop', 'input'],
    ['ct state established accept; drop', 'input'],
    ['ct state new drop', 'output'],
    ['ct state invalid drop', 'input'],
    ['ct status dnat drop', 'input'],
    ['ct direction original drop', 'input'],
    ['iifname "eth*" drop', 'input'],
    ['iifname != "lo" drop', 'input'],
    ['iifname != "lo" drop', 'output'],
    ['oifname "eth0" drop', 'output'],
    ['oifname != "lo" drop', 'input'],
    ['ip saddr != 192.0.2.0/24 drop', 'input'],
    ['ip daddr { 192.0.2.1-192.0.2.9, 10.0.0.0/8 } drop', 'input'],
    ['ip6 saddr != fe80::1 drop', 'input'],
    ['tcp dport != 22 drop', 'input'],
    ['meta l4proto != tcp drop', 'input'],
    ['meta mark != 0 drop', 'output'],
    ['meta mark & 0xff == 0 drop', 'input'],
    ['meta mark set 5; meta mark 5 drop', 'output'],
    ['ct mark set 1; meta mark set ct mark or 2; meta mark 3 drop', 'output'],
    ['fib daddr type local drop', 'input'],
    ['fib daddr type != local drop', 'output'],
    ['fib saddr type local drop', 'input'],
    ['fib saddr . iif oif missing drop', 'prerouting'],
    ['fib saddr . iif oif exists drop', 'prerouting'],
    ['ip frag-off & 0x1fff != 0 drop', 'input'],
    ['meta pkttype broadcast drop', 'input'],
    ['meta pkttype host drop', 'input'],
    ['exthdr frag exists drop', 'input'],
    ['meta ipsec exists drop', 'input'],
    ['rt ipsec missing drop', 'output'],
    ['socket transparent 1 drop', 'input'],
    ['ip saddr . udp dport { 192.0.2.2 . 8472 } drop', 'input'],
    ['meta l4proto . th dport { tcp . 8472, udp . 22 } drop', 'input'],
    ['udp dport vmap { 8472 : drop, 22 : accept }', 'input'],
    ['jump sub; drop', 'input'],
    ['goto sub; drop', 'input'],
    ['notrack', 'prerouting'],
    ['ct state untracked drop', 'input'],
    ['reject', 'output'],
  ];
  for (const [text, hook] of table) {
    await t.test(`${hook}: ${text}`, async () => {
      await nft(
        left,
        `table inet filter {
          chain sub { return
          }
          chain base { type filter hook ${hook} priority 0; policy accept;
            ${text.replaceAll('; ', '\n')}
          }
        }`,
      );
      const found = await verdicts();
      assert.equal(await pass.both(), found.length === 0, found.join('; '));
    });
  }
  await t.test('masquerading as the address that it has', async () => {
    await nft(left, 'table ip nat { chain p { type nat hook postrouting priority 100; oifname "eth0" masquerade; }; }');
    assert.deepEqual(await verdicts(), []);
    assert.equal(await pass.out(), true);
  });
  await t.test('masquerading as another one', async () => {
    left.ip('address del 192.0.2.1/24 dev eth0');
    left.ip('address add 192.0.2.7/24 dev eth0');
    left.ip('address add 192.0.2.1/24 dev eth0');
    assert.equal((await verdicts()).length, 1);
    assert.equal(await pass.out(), false);
  });
});

test('the kernel does so with the rules of iptables, too', { skip }, async (t) => {
  const hosts = build(t);
  const { left, verdicts } = hosts;
  const pass = datagrams(hosts);
  const ipset = left.run('ipset create vteps hash:net').then(
    () => true,
    () => false,
  );
  if (await ipset) {
    left.exec('ipset add vteps 192.0.2.0/24');
    left.exec('ipset create ports hash:ip,port');
    left.exec('ipset add ports 192.0.2.2,udp:8472');
  }
  const table = [
    '-A INPUT -p udp -m multiport --dports 4789,8472 -j DROP',
    '-A INPUT -p udp -m multiport --sports 1:1023 -j DROP',
    '-A INPUT -p udp -m multiport ! --ports 8472 -j DROP',
    '-A INPUT ! -i lo -j DROP',
    '-A INPUT -i eth+ -j DROP',
    '-A INPUT -s 192.0.2.0/24 ! -d 192.0.2.1 -j DROP',
    '-A INPUT -m iprange --src-range 192.0.2.2-192.0.2.9 -j DROP',
    '-A INPUT -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP',
    '-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j DROP',
    '-A OUTPUT -m conntrack --ctstate INVALID -j DROP',
    '-A INPUT -m conntrack --ctdir ORIGINAL -j DROP',
    '-A INPUT -m addrtype --dst-type LOCAL -j DROP',
    '-A OUTPUT -m addrtype --dst-type LOCAL -j DROP',
    '-A OUTPUT -m addrtype ! --src-type LOCAL -j DROP',
    '-A INPUT -m pkttype --pkt-type unicast -j DROP',
    '-A INPUT -m pkttype ! --pkt-type broadcast -j DROP',
    '-A INPUT -m policy --dir in --pol ipsec -j DROP',
    '-A INPUT -m policy --dir in --pol none -j DROP',
    '-A INPUT -f -j DROP',
    '-A INPUT ! -f -j DROP',
    '-t raw -A PREROUTING -m rpfilter --validmark --invert -j DROP',
    '-t raw -A PREROUTING -m rpfilter -j DROP',
    '-A INPUT -m socket --transparent -j DROP',
    '-A INPUT -m mark --mark 0x0/0xf0000 -j DROP',
    '-A INPUT -m connmark ! --mark 0 -j DROP',
    ...((await ipset)
      ? [
          '-A INPUT -m set --match-set vteps src -j DROP',
          '-A INPUT -m set ! --match-set vteps src -j DROP',
          '-A INPUT -m set --match-set ports src,dst -j DROP',
          '-A INPUT -m set --match-set ports dst,dst -j DROP',
        ]
      : []),
  ];
  for (const legacy of [false, true]) {
    for (const rule of table) {
      const command = legacy ? 'iptables-legacy' : 'iptables';
      await t.test(`${command} ${rule}`, async () => {
        left.exec(`${command} ${rule}`);
        const found = await verdicts();
        assert.equal(await pass.both(), found.length === 0, found.join('; '));
        left.exec(`${command} ${rule.replace('-A', '-D')}`);
      });
    }
  }
  const marks = async (...rules: string[]) => {
    for (const rule of rules) left.exec(`iptables -t mangle ${rule}`);
    const found = await verdicts();
    assert.equal(await pass.both(), found.length === 0, found.join('; '));
    left.exec('iptables -t mangle -F');
    return found.length;
  };
  await t.test('marks', async () => {
    const set = '-A OUTPUT -p udp -j MARK --set-xmark 0xff/0xf0';
    assert.equal(await marks(set, '-A POSTROUTING -m mark --mark 0xff -j DROP'), 1);
    assert.equal(await marks(set, '-A POSTROUTING -m mark --mark 0xf0 -j DROP'), 0);
    assert.equal(await marks(set, '-A OUTPUT -j MARK --and-mark 0xf', '-A POSTROUTING -m mark --mark 0xf -j DROP'), 1);
    assert.equal(
      await marks(set, '-A OUTPUT -j MARK --set-mark 0x100/0xf', '-A POSTROUTING -m mark --mark 0x1f0 -j DROP'),
      1,
    );
    const save = '-A OUTPUT -j CONNMARK --save-mark --mask 0xf';
    const restore = '-A POSTROUTING -j CONNMARK --restore-mark';
    assert.equal(await marks(set, save, restore, '-A POSTROUTING -m mark --mark 0xf -j DROP'), 1);
    assert.equal(await marks(set, save, restore, '-A POSTROUTING -m mark --mark 0xff -j DROP'), 0);
  });
});

test('the kernel does so with IPsec policies', { skip }, async (t) => {
  const hosts = build(t);
  const { left, verdicts } = hosts;
  const pass = datagrams(hosts);
  const template = 'tmpl src 192.0.2.1 dst 192.0.2.2 proto esp mode transport';
  const table = [
    `src 192.0.2.1 dst 192.0.2.2 dir out ${template}`,
    `src 192.0.2.1 dst 192.0.2.2 proto udp dport 8472 dir out ${template}`,
    `src 192.0.2.1 dst 192.0.2.2 proto udp dport 4789 dir out ${template}`,
    `src 192.0.2.0/24 dst 192.0.2.0/24 dir in ${template}`,
    `src 0.0.0.0/0 dst 0.0.0.0/0 dir fwd ${template}`,
    `src 192.0.2.1 dst 192.0.2.2 dev eth0 dir out ${template}`,
    `src 192.0.2.1 dst 192.0.2.2 dev lo dir out ${template}`,
    'src 192.0.2.1 dst 192.0.2.2 dir out action block',
    `src 192.0.2.1 dst 192.0.2.2 dir out mark 7 ${template}`,
    `src 192.0.2.1 dst 192.0.2.2 dir out if_id 7 ${template}`,
    `src 192.0.2.1 dst 192.0.2.2 proto tcp dir out ${template}`,
    `src 192.0.2.1 dst 192.0.2.2 proto udp sport 5 dir out ${template}`,
  ];
  for (const policy of table) {
    await t.test(policy, async () => {
      left.ip(`xfrm policy add ${policy}`);
      const found = await verdicts();
      assert.equal(await pass.both(), found.length === 0, found.join('; '));
      left.ip('xfrm policy flush');
    });
  }
  await t.test('the one of the smallest number wins', async () => {
    left.ip(`xfrm policy add src 192.0.2.1 dst 192.0.2.2 dir out priority 5 ${template}`);
    left.ip('xfrm policy add src 0.0.0.0/0 dst 0.0.0.0/0 dir out priority 4');
    assert.deepEqual(await verdicts(), []);
    assert.equal(await pass.out(), true);
  });
});

test('auto keeps to the policies of the host, redirect is warned of them', {
  skip: skip || lacking('tun'),
}, async (t) => {
  const { left } = build(t);
  const start = async (uplink: string) => {
    const words = `id 1 dev eth0 dstport 8472 nolearning uplink ${uplink}`;
    const vtep = await uvxlanVtep(left, {
      local: '192.0.2.1',
      addresses: '10.244.1.1/16',
      mac: '02:00:00:00:00:01',
      words,
    });
    const [link] = await links(left);
    await vtep.daemon.stop();
    return { ...link.uvxlan, log: vtep.daemon.output };
  };
  await nft(
    left,
    'table inet filter { chain input { type filter hook input priority 0; policy accept; tcp dport 22 drop; }; }',
  );
  const free = await start('auto');
  assert.equal(free.uplink, 'redirect', free.reason);
  assert.equal(free.policies, 0);
  await nft(left, `table inet filter { chain input { ${INPUT} policy drop; ct state established accept; }; }`);
  const bound = await start('auto');
  assert.equal(bound.uplink, 'udp');
  assert.match(bound.reason, /nftables inet filter input drops incoming UDP 8472: 'policy drop'$/);
  assert.equal(bound.policies, undefined);
  const asked = await start('redirect');
  assert.equal(asked.uplink, 'redirect');
  assert.equal(asked.policies, 1);
});

test('a policy for one VTEP holds from the first packet on, and for a VTEP that comes later', { skip }, async (t) => {
  const { left } = build(t);
  const template = 'tmpl proto esp mode transport';
  left.ip(`xfrm policy add src 192.0.2.1 dst 192.0.2.2 proto udp dir out ${template}`);
  const daemon = await uvxlanUp(left, 'vx id 1 local 192.0.2.1 remote 192.0.2.2 dev eth0 dstport 8472');
  assert.match(
    daemon.stdout,
    /vx is up: .* uplink udp \(redirect would get past a policy .* encrypts outgoing UDP 8472/,
  );
  await daemon.stop();
  const later = await uvxlanUp(left, 'vx id 1 local 192.0.2.1 dev eth0 dstport 8472');
  assert.match(later.stdout, /vx is up: .* uplink redirect /);
  await tell(left, 'fdb append 00:00:00:00:00:00 dev vx dst 192.0.2.2');
  await later.waitFor(/vx: uplink udp from now on .* encrypts outgoing UDP 8472/);
  await tell(left, 'link set vx uplink redirect');
  await later.waitFor(/uplink redirect gets past a policy of this host: .* encrypts outgoing UDP 8472/);
});

test('changes are told, each policy once', { skip }, async (t) => {
  const { left, host } = build(t);
  const changes: PolicyChange[] = [];
  const notes: string[] = [];
  const watch = new PolicyWatch(host, {
    onChange: (change) => changes.push(change),
    onNote: (note) => notes.push(note),
  });
  t.after(() => watch.stop());
  watch.follow('a', TUNNEL);
  watch.follow('b', { ...TUNNEL, port: 4789 });
  const drop = 'udp dport 8472 ip saddr 192.0.2.3 drop';
  const table = (rule: string) => `table inet t { chain input { ${INPUT} ${rule}; }; }`;
  const next = async (cause: () => void | Promise<void>) => {
    const before = changes.length;
    await cause();
    await eventually('a change', () => changes.length > before);
    const { key, policies, fresh } = changes.at(-1)!;
    return [key, policies.map(({ effect }) => effect), fresh.length];
  };
  await eventually('the first reading', async () => (await host.iproute.run('nft', ['list', 'ruleset'])) === '');
  await new Promise((resolve) => setTimeout(resolve, 300));
  assert.deepEqual(changes, []);

  assert.deepEqual(await next(() => nft(left, table('udp dport 8472 drop'))), ['a', ['drop'], 1]);
  assert.deepEqual(await next(() => nft(left, '')), ['a', [], 0]);
  assert.deepEqual(await next(() => nft(left, table('udp dport 8472 drop'))), ['a', ['drop'], 0]);
  assert.deepEqual(await next(() => nft(left, table(drop))), ['a', [], 0]);
  // A new VTEP, to which a rule applies that was there before.
  assert.deepEqual(await next(() => watch.follow('a', { ...TUNNEL, remotes: ['192.0.2.2', '192.0.2.3'] })), [
    'a',
    ['drop'],
    1,
  ]);
  assert.deepEqual(await next(() => nft(left, '')), ['a', [], 0]);

  const template = 'tmpl src 192.0.2.1 dst 192.0.2.2 proto esp mode transport';
  const add = `xfrm policy add src 192.0.2.1 dst 192.0.2.2 proto udp dport 4789 dir out ${template}`;
  assert.deepEqual(await next(() => void left.ip(add)), ['b', ['ipsec'], 1]);
  watch.unfollow('b');
  assert.deepEqual(watch.policies('b'), []);
  assert.deepEqual(notes, []);
});

test('what tells of no change is read again every now and then, and known policies are not told', {
  skip,
}, async (t) => {
  const { left, host } = build(t);
  left.exec('iptables-legacy -A OUTPUT -p udp -m udp --dport 8472 -j DROP');
  const { policies: known } = await findPolicies(host, TUNNEL);
  const changes: PolicyChange[] = [];
  const watch = new PolicyWatch(host, { onChange: (change) => changes.push(change), period: 200 });
  t.after(() => watch.stop());
  watch.follow('a', TUNNEL, known);
  await new Promise((resolve) => setTimeout(resolve, 500));
  assert.deepEqual(changes, []);
  assert.deepEqual(watch.policies('a'), known);
  left.exec('iptables-legacy -F OUTPUT');
  await eventually('a change', () => changes.length === 1);
  assert.deepEqual(changes[0], { key: 'a', policies: [], fresh: [] });
});

test('a tunnel is followed by the rules that were read for it', { skip }, async (t) => {
  const { left, host } = build(t);
  left.exec('iptables-legacy -A OUTPUT -p udp -m udp --dport 8472 -j DROP');
  let readings = 0;
  const ask = host.iproute.runEach.bind(host.iproute);
  host.iproute.runEach = (questions) => {
    readings++;
    return ask(questions);
  };
  const changes: PolicyChange[] = [];
  const watch = new PolicyWatch(host, { onChange: (change) => changes.push(change) });
  t.after(() => watch.stop());
  assert.equal(judged(await watch.rules(), TUNNEL).policies.length, 1);
  watch.follow('a', TUNNEL, []); // as if there were none: that there is one is a change
  await eventually('a change', () => changes.length === 1);
  assert.equal(readings, 1);
  watch.follow('b', { ...TUNNEL, port: 4789 });
  await eventually('read for another tunnel', () => readings === 2);
});

test('nothing is left running after stop', { skip }, async (t) => {
  const { left, host } = build(t);
  const watch = new PolicyWatch(host, { onChange: () => {} });
  const running = () =>
    spawnSync('ip', ['netns', 'pids', left.namespace], { encoding: 'utf8' }).stdout.trim().split('\n');
  await eventually('two monitors', () => running().length === 2);
  watch.stop();
  await eventually('none', () => running()[0] === '');
});

test('many rules are read and judged', { skip }, async (t) => {
  const { left, host } = build(t);
  const services = Array.from({ length: 2500 }, (_, i) => ({
    address: `10.96.${i >> 8}.${i & 255}`,
    chain: `KUBE-SVC-${i}`,
  }));
  const lines = [
    '*nat',
    ':KUBE-SERVICES -',
    ':KUBE-MARK-MASQ -',
    ...services.map(({ chain }) => `:${chain} -`),
    '-A OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES',
    '-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000',
    ...services.flatMap(({ address, chain }) => [
      `-A KUBE-SERVICES -d ${address}/32 -p tcp -m comment --comment "cluster IP" -m tcp --dport 80 -j ${chain}`,
      `-A ${chain} ! -s 10.244.0.0/16 -d ${address}/32 -p tcp -m comment --comment "cluster IP" -m tcp --dport 80 -j KUBE-MARK-MASQ`,
      `-A ${chain} -p tcp -m statistic --mode random --probability 0.5 -m tcp -j DNAT --to-destination 10.244.1.5:80`,
    ]),
    'COMMIT',
    '',
  ];
  await left.run('iptables-restore', { input: lines.join('\n'), timeout: 180_000 });
  const start = performance.now();
  const rules = await readRules(host);
  const read = performance.now();
  const { policies } = await findPolicies(host, TUNNEL);
  t.diagnostic(`${Math.round(read - start)} ms to read ${lines.length} lines`);
  assert.deepEqual(policies, []);
  assert.ok(rules.chains.length > 0);
});
