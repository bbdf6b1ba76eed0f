/** Frames that do not fit the path, in memory: fragmented by the host, refused, and what the TAP is told. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { type Device, DF_INHERIT } from '../../dataplane/device.ts';
import { Reply } from '../../dataplane/reply.ts';
import { TooBig } from '../../dataplane/too-big.ts';
import { type FrameSpec, frame, mac, onWire, otherFrame, packet, payload, superFrame } from './packet.ts';
import { Node, Rig, type TestPort } from './rig.ts';

const [WITH_DF, WITHOUT, IPV6, ALL] = [0x11, 0x12, 0x13, 0x14];
const MTU = 1400;

/** A device with VTEPs behind a path of 1400 bytes: inner IP packets of 1350 fit over IPv4. */
function create(tunnelGso = true) {
  const node = new Node({ tunnelGso });
  const { rig } = node;
  const df = rig.vtep('192.0.2.2', { mtu: MTU, df: true });
  const wide = rig.vtep('192.0.2.3', { mtu: 1500, df: true });
  rig.entry(0, WITH_DF, df);
  rig.entry(0, WITHOUT, rig.vtep('192.0.2.4', { mtu: MTU }));
  rig.entry(0, IPV6, rig.vtep('2001:db8::2', { mtu: MTU, df: true }));
  rig.entry(0, ALL, df, wide);
  const exchange = (...packets: Uint8Array[]) => {
    rig.clear();
    (node.uplink as TestPort).take();
    node.taps[0].waiting.push(...packets);
    node.run();
    node.balance();
    const { tx_packets = 0, tx_too_big = 0 } = rig.device(0);
    const told = node.taps[0].take().flatMap((bytes) => onWire(bytes));
    return { sent: tx_packets, tooBig: tx_too_big, told };
  };
  return { node, exchange };
}

/** A frame whose IP packet has so many bytes. */
const sized = (bytes: number, spec: Partial<FrameSpec> = {}): Uint8Array =>
  frame({ to: WITH_DF, ...spec, payload: payload(bytes - (spec.version === 6 ? 60 : 40)) });
/** The MTU that an error tells. */
const mtuOf = (error: Uint8Array): number =>
  error[12] === 8 ? (error[40] << 8) | error[41] : (error[60] << 8) | error[61];

test('a frame that fits goes out, one byte more is refused and told of', () => {
  const { exchange } = create();
  for (const version of [4, 6] as const) {
    assert.deepEqual(exchange(packet(sized(1350, { version }))), { sent: 1, tooBig: 0, told: [] });
    const bytes = sized(1351, { version });
    const { sent, tooBig, told } = exchange(packet(bytes));
    assert.deepEqual([sent, tooBig, told.map(mtuOf)], [0, 1, [1350]]);
    assert.deepEqual([...told[0].subarray(0, 12)], [...mac(1), ...mac(WITH_DF)]);
  }
});

test('super-frames count by their segments, and are one that is refused', () => {
  for (const tunnelGso of [true, false]) {
    const { exchange } = create(tunnelGso);
    const bytes = frame({ to: WITH_DF, payload: payload(13000) });
    assert.equal(exchange(superFrame(bytes, 1310)).tooBig, 0);
    const { sent, tooBig, told } = exchange(superFrame(bytes, 1311));
    assert.deepEqual([sent, tooBig, told.map(mtuOf)], [0, 1, [1350]]);
  }
});

test('without DF outside it is the host that fragments; here there is no way through it', () => {
  const { exchange } = create();
  assert.deepEqual(exchange(packet(sized(1351, { to: WITHOUT }))), { sent: 0, tooBig: 1, told: [] });
  assert.deepEqual(exchange(packet(sized(1331, { to: IPV6 }))), { sent: 0, tooBig: 1, told: [] }, 'IPv6 has no DF');
});

test('DF that is inherited counts as well', () => {
  const { node, exchange } = create();
  node.rig.setFlags(0, DF_INHERIT);
  assert.deepEqual(exchange(packet(sized(1351, { to: WITHOUT, dontFragment: true }))).told.map(mtuOf), [1350]);
  assert.deepEqual(exchange(packet(sized(1351, { to: WITHOUT, dontFragment: false }))).told, []);
  assert.deepEqual(exchange(packet(sized(1351, { to: WITHOUT, version: 6 }))).told.map(mtuOf), [1350]);
});

test('a port of a bridge tells senders whatever the outer DF is, as the kernel does', () => {
  const { node, exchange } = create();
  node.rig.setBridged(0);
  for (const [to, mtu] of [
    [WITH_DF, 1350],
    [WITHOUT, 1350],
    [IPV6, 1330],
  ]) {
    assert.deepEqual(exchange(packet(sized(1400, { to }))).told.map(mtuOf), [mtu]);
    assert.deepEqual(exchange(packet(sized(1400, { to, version: 6 }))).told.map(mtuOf), [mtu]);
    // These go on to the host, which is not there, or stop at the outer DF.
    assert.deepEqual(exchange(packet(sized(1400, { to, dontFragment: false }))), { sent: 0, tooBig: 1, told: [] });
  }
});

test('what is not IP is refused without a word', () => {
  const { exchange } = create();
  assert.deepEqual(exchange(packet(otherFrame(0x88cc, 1400, 1, WITH_DF))), { sent: 0, tooBig: 1, told: [] });
  assert.deepEqual(exchange(packet(sized(1400, { tags: [5] }))), { sent: 0, tooBig: 1, told: [] });
});

test('each copy of a frame is for itself', () => {
  const { exchange } = create();
  const { sent, tooBig, told } = exchange(packet(sized(1400, { to: ALL })));
  assert.deepEqual([sent, tooBig, told.map(mtuOf)], [1, 1, [1350]]);
});

test('frames around one that is refused are not disturbed', () => {
  const { node, exchange } = create();
  const small = sized(200);
  const { sent, tooBig } = exchange(packet(small), packet(small), packet(sized(1400)), packet(small), packet(small));
  assert.deepEqual([sent, tooBig], [4, 1]);
  assert.equal((node.uplink as TestPort).take().flatMap((bytes) => onWire(bytes, true)).length, 4);
});

test('errors are bounded in number, by time', () => {
  const rig = new Rig();
  let now = 5000;
  const teller = new TooBig(rig.memory, new Reply(rig.memory), () => now);
  const at = rig.memory.take(2048);
  const bytes = sized(1400);
  rig.memory.u8.set(bytes, at);
  const tap = { write: (_at: number, length: number) => length } as unknown as TestPort;
  const device = { tap } as unknown as Device;
  const told = () =>
    Array.from({ length: 3000 }, () => teller.tell(at, bytes.length, device, 1350, true)).filter(Boolean).length;
  assert.equal(told(), 1000);
  now += 999;
  assert.equal(told(), 0);
  now += 1;
  assert.equal(told(), 1000);
});
