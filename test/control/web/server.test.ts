import assert from 'node:assert/strict';
import { request } from 'node:http';
import { PassThrough } from 'node:stream';
import test, { type TestContext } from 'node:test';
import { WrongValue } from '../../../control/fields.ts';
import { type Node, Tables } from '../../../control/web/nodes.ts';
import { parseListen, startWeb } from '../../../control/web/server.ts';
import type { FdbRow, Live, MacHistory, PacketList, Page, PeerRow } from '../../../control/web/shapes.ts';
import { enhancedPacket, interfaceDescription, OUTBOUND, sectionHeader } from '../../../packets/pcapng.ts';
import { frame, outerFrame, vxlan } from '../../dataplane/packet.ts';

const RECORDS = Array.from({ length: 250 }, (_, i) => ({
  mac: `02:00:00:00:00:${i.toString(16).padStart(2, '0')}`,
  ifname: i % 2 ? 'vx1' : 'vx2',
  dst: `192.0.2.${1 + (i % 5)}`,
  flags: ['self'],
  state: 'permanent',
}));
const LINK = {
  ...{ ifname: 'vx1', address: '02:00:00:00:00:01', mtu: 1450 },
  linkinfo: { info_data: { port: 8472 } },
  uvxlan: { unresolved: [{ dst: '192.0.2.3', reason: 'no route' }] },
};

const HISTORY = ({ dev, mac }: { dev: string; mac: string }): MacHistory => {
  if (!mac) throw new WrongValue('""', 'is not a MAC address');
  return { changes: 9, history: [{ time: 1, event: `of ${mac} on ${dev}`, dst: '192.0.2.3', from: '192.0.2.2' }] };
};

const PEERS = [1, 2, 3, 4, 5].map((i) => ({ ifname: 'vx1', dst: `192.0.2.${i}`, macs: 25 }));
const RATE = { packets: 2, bytes: 200 };
const DROP = {
  ...{ dev: 'vx1', reason: 'tx_no_remote', time: 1e12, interface: 'vx1', direction: 'out', length: 300 },
  hex: Buffer.from(frame({})).toString('hex'),
  comments: ['dropped, tx_no_remote: <b>'],
};

/** A daemon that counts what it is asked. */
class FakeNode implements Node {
  readonly name = 'left';
  readonly asked: string[] = [];
  failure: string | undefined;

  async ask<T>(command: string, args?: unknown): Promise<T> {
    this.asked.push(command);
    if (command === 'fdb history') return HISTORY(args as { dev: string; mac: string }) as T;
    if (this.failure) throw new Error(this.failure);
    const answers: Record<string, unknown> = {
      'fdb show': RECORDS,
      'link show': [LINK],
      'peer show': PEERS,
      threads: [],
      stats: [],
      samples: { drops: [DROP], peers: [{ dev: 'vx1', address: '192.0.2.4', tx: RATE, rx: RATE }] },
      status: { version: '0.1.0' },
    };
    return answers[command] as T;
  }

  /** Three packets, then as long as one waits. */
  async capture(): ReturnType<Node['capture']> {
    const stream = new PassThrough();
    stream.write(sectionHeader('test'));
    stream.write(interfaceDescription('vx1', 'inner', { snapLength: 65535, filter: '' }));
    for (const bytes of [frame({ payload: Buffer.from('<script>') }), frame({ version: 6 }), Uint8Array.of(1, 2, 3)]) {
      const comments = ['to VTEP 192.0.2.2'];
      stream.write(
        enhancedPacket({
          interface: 0,
          time: 1e12,
          bytes,
          length: bytes.length,
          direction: OUTBOUND,
          comments,
          lost: 0,
        }),
      );
    }
    return { chunks: stream, finish: () => void stream.end() };
  }
}

async function serve(t: TestContext, address = '127.0.0.1', token?: string): Promise<{ url: string; node: FakeNode }> {
  const node = new FakeNode();
  const web = await startWeb({ address, port: 0, nodes: [node], token });
  t.after(() => web.close());
  return { url: web.url, node };
}

test('what to listen on', () => {
  assert.deepEqual(parseListen('127.0.0.1:8443'), { address: '127.0.0.1', port: 8443 });
  assert.deepEqual(parseListen('[::1]:0'), { address: '::1', port: 0 });
  for (const wrong of ['8443', 'localhost:8443', '127.0.0.1', '127.0.0.1:65536', '::1:80', '', '127.0.0.1:']) {
    assert.throws(() => parseListen(wrong), /is not ADDRESS:PORT/, wrong);
  }
});

test('serves its files with headers that keep others out', async (t) => {
  const { url } = await serve(t);
  let bytes = 0;
  for (const path of [
    '',
    'main.js',
    'style.css',
    'uplot.css',
    'uplot.js',
    'charts.js',
    'dom.js',
    'drops.js',
    'microscope.js',
    'rates.js',
    'steps.js',
    'tables.js',
    'topology.js',
  ]) {
    const response = await fetch(url + path);
    assert.equal(response.status, 200, path);
    assert.match(response.headers.get('content-security-policy')!, /default-src 'none'; script-src 'self';/);
    assert.equal(response.headers.get('x-content-type-options'), 'nosniff');
    bytes += (await response.arrayBuffer()).byteLength;
  }
  assert.ok(bytes < 200_000, `the first view has ${bytes} bytes`);
});

test('refuses all but reading, unknown paths and names, and nonsense', async (t) => {
  const { url } = await serve(t);
  assert.equal((await fetch(url, { method: 'POST', body: 'x' })).status, 405);
  for (const path of [
    '../package.json',
    '%2e%2e/package.json',
    'api',
    'api/fdb',
    'api/fdb?node=other',
    '//',
    '?token=a%0d%0ab',
  ]) {
    const { status } = await fetch(url + path);
    assert.ok(
      [200, 400, 404].includes(status) && (status !== 200 || path.startsWith('?') || path === '//'),
      `${path} ${status}`,
    );
  }
  assert.equal((await fetch(`${url}api/fdb?node=left&offset=-1`)).status, 400);
  const status = await new Promise((resolve) => {
    request(url, { headers: { host: 'evil.example' } }, (response) => resolve(response.resume().statusCode)).end();
  });
  assert.equal(status, 421, 'a name that leads here by DNS rebinding');
});

test('asks for a token on other addresses than loopback', async (t) => {
  const { url } = await serve(t, '0.0.0.0', 'right');
  const at = url.replace('0.0.0.0', '127.0.0.1').replace('?token=right', '');
  assert.match(url, /\?token=right$/);
  assert.equal((await fetch(at)).status, 401);
  assert.equal((await fetch(`${at}api/drops?token=wrong`)).status, 401);
  const { port } = new URL(url);
  for (const wrong of [`uvxlan_token_${port}=wrong`, 'uvxlan_token_1=right']) {
    assert.equal((await fetch(at, { headers: { cookie: wrong } })).status, 401, wrong);
  }
  const first = await fetch(`${at}?token=right`, { redirect: 'manual' });
  assert.equal(first.status, 303);
  const cookie = first.headers.get('set-cookie')!;
  assert.match(cookie, new RegExp(`^uvxlan_token_${port}=right; HttpOnly; SameSite=Strict`));
  // Beside that of a daemon at another port.
  const both = `uvxlan_token_1=other; ${cookie.split(';')[0]}`;
  assert.equal((await fetch(`${at}api/drops`, { headers: { cookie: both } })).status, 200);
  assert.equal((await fetch(`${at}api/drops`, { headers: { authorization: 'Bearer right' } })).status, 200);
});

test('asks a node once a second, however many pages are open, and says what does not work', async (t) => {
  const { url, node } = await serve(t);
  const controller = new AbortController();
  t.after(() => controller.abort());
  const first = async (): Promise<Live> => {
    const response = await fetch(`${url}api/live`, { signal: controller.signal });
    const decoder = new TextDecoder();
    let text = '';
    for await (const chunk of response.body!) {
      text += decoder.decode(chunk);
      const data = /^data: (.*)$/m.exec(text);
      if (data) return JSON.parse(data[1]) as Live;
    }
    throw new Error('the stream ended');
  };
  const lives = await Promise.all([first(), first(), first()]);
  const [state] = lives[0].nodes;
  assert.deepEqual([state.name, state.error], ['left', undefined]);
  assert.deepEqual(state.samples, [{ dev: 'vx1', reason: 'tx_no_remote', time: 1e12 }]);
  // Five VTEPs: the one that cannot be reached, the busiest, the rest.
  const { total, rows } = state.devices[0].peers;
  assert.deepEqual([total, rows.length], [5, 5]);
  assert.deepEqual(
    rows.slice(0, 2).map(({ address, macs, reason, tx }) => [address, macs, reason, tx.bytes]),
    [
      ['192.0.2.3', 25, 'no route', 0],
      ['192.0.2.4', 25, '', 200],
    ],
  );
  assert.ok(node.asked.filter((command) => command === 'stats').length <= 3);
  node.failure = 'the daemon is gone';
  assert.equal((await fetch(`${url}api/neighbours?node=left`)).status, 503);
});

test('the last drop of a reason comes taken apart', async (t) => {
  const { url } = await serve(t);
  const sample = (reason: string) => fetch(`${url}api/sample?node=left&dev=vx1&reason=${reason}`);
  const { packets } = (await (await sample('tx_no_remote')).json()) as PacketList;
  assert.equal(packets.length, 1);
  assert.deepEqual([packets[0].length, packets[0].comments], [300, ['dropped, tx_no_remote: <b>']]);
  assert.equal(packets[0].layers[0].title, 'Ethernet');
  assert.equal((await sample('tx_path_mtu')).status, 404);
});

test('a capture that is posted comes taken apart, and what is wrong with it is said', async (t) => {
  const { url } = await serve(t);
  const block = (bytes: Uint8Array) =>
    enhancedPacket({
      interface: 0,
      time: 1e12,
      bytes,
      length: bytes.length,
      direction: OUTBOUND,
      comments: [],
      lost: 0,
    });
  const head = [sectionHeader('test'), interfaceDescription('eth0', '', { snapLength: 65535, filter: '' })];
  const tunnelled = outerFrame(vxlan(7, frame({ version: 6 })), 8472);
  const post = (body: Uint8Array, filter = '', type = 'application/octet-stream') =>
    fetch(`${url}api/open?${new URLSearchParams({ filter })}`, {
      method: 'POST',
      body,
      headers: { 'content-type': type },
    });
  const list = async (response: Response) => (await response.json()) as PacketList;

  const both = Buffer.concat([...head, block(frame({})), block(tunnelled)]);
  const { packets, note } = await list(await post(both));
  assert.deepEqual([packets.length, note], [2, '']);
  assert.match(packets[1].summary, /^VXLAN \| /);
  assert.equal((await list(await post(both, 'udp port 8472'))).packets.length, 1);
  assert.equal((await list(await post(both, 'ip6'))).packets.length, 1, 'of the frame inside');
  const many = await list(await post(Buffer.concat([...head, ...Array.from({ length: 500 }, () => block(frame({})))])));
  assert.deepEqual([many.packets.length, many.note], [200, 'these are the first 200: a filter shows others']);
  const cut = await list(await post(both.subarray(0, -10)));
  assert.equal(cut.packets.length, 1);
  assert.match(cut.note!, /^the capture ends within a block/);

  for (const [body, filter, type, status, text] of [
    [Buffer.from('hello'), '', undefined, 400, /no capture: it begins with 68656c6c/],
    [Buffer.alloc(0), '', undefined, 400, /the capture is empty/],
    [both, 'hosts', undefined, 400, /hosts/],
    [both, '', 'text/plain', 415, /application\/octet-stream/],
    [Buffer.alloc(16 * 1024 * 1024 + 1), '', undefined, 413, /at most 16777216 bytes/],
  ] as const) {
    const response = await post(body, filter, type);
    assert.equal(response.status, status);
    assert.match(await response.text(), text);
  }
  assert.equal((await fetch(`${url}api/live`, { method: 'POST', body: 'x' })).status, 405);
});

test('tables are searched and paged', async () => {
  const node = new FakeNode();
  let now = 0;
  const tables = new Tables(node, () => now);
  const first: Page<FdbRow> = await tables.fdb('', 0);
  assert.deepEqual([first.total, first.rows.length, first.rows[0].mac], [250, 100, RECORDS[0].mac]);
  const last = await tables.fdb('', 200);
  assert.deepEqual([last.total, last.rows.length, last.rows[0].mac], [250, 50, RECORDS[200].mac]);
  const found = await tables.fdb('VX1 192.0.2.3', 10);
  assert.deepEqual([found.total, found.rows.length], [25, 15]);
  assert.ok(found.rows.every(({ dev, dst }) => dev === 'vx1' && dst === '192.0.2.3'));
  assert.deepEqual(node.asked, ['fdb show'], 'asked once for all of it');
  now = 10_000;
  const peers: Page<PeerRow> = await tables.peers('', 0);
  assert.equal(peers.total, 5);
  assert.deepEqual(
    peers.rows.find(({ dev, address }) => dev === 'vx1' && address === '192.0.2.3'),
    { address: '192.0.2.3', dev: 'vx1', macs: 25, reason: 'no route' },
  );
});

test('packets come taken apart, with what the daemon says of them', async (t) => {
  const { url } = await serve(t);
  const response = await fetch(`${url}api/packets?node=left`);
  const { packets } = (await response.json()) as PacketList;
  assert.equal(packets.length, 3);
  const [first, second, broken] = packets;
  assert.deepEqual([first.interface, first.direction, first.comments], ['vx1', 'out', ['to VTEP 192.0.2.2']]);
  assert.equal(first.summary, '10.0.0.1 > 10.0.0.2 TCP');
  assert.ok(first.hex.endsWith(Buffer.from('<script>').toString('hex')));
  assert.deepEqual(
    first.layers.slice(0, 3).map(({ title }) => title),
    ['Ethernet', 'IPv4', 'TCP'],
  );
  assert.equal(second.layers[1].fields.find(({ name }) => name === 'source')!.value, 'fd00:1::');
  assert.match(broken.fault!.message, /Ethernet header is cut off/);
  assert.equal((await fetch(`${url}api/packets?node=other`)).status, 404);
  const all = await Promise.all([1, 2, 3].map(() => fetch(`${url}api/packets?node=left`).then(({ status }) => status)));
  assert.deepEqual(all.sort(), [200, 200, 503], 'two captures at a time');
});

test('the last changes of a MAC', async (t) => {
  const { url } = await serve(t);
  const ask = (query: string) => fetch(`${url}api/history?${query}`);
  const answer = await ask('node=left&dev=vx1&mac=02:00:00:00:00:01');
  assert.deepEqual(await answer.json(), HISTORY({ dev: 'vx1', mac: '02:00:00:00:00:01' }));
  assert.equal((await ask('node=left&dev=vx1')).status, 400);
  assert.equal((await ask('node=other&dev=vx1')).status, 404);
});
