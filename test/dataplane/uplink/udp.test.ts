/** Over real UDP sockets, on the loopback device. */
import assert from 'node:assert/strict';
import { networkInterfaces } from 'node:os';
import test, { after } from 'node:test';
import { Batch } from '../../../dataplane/batch.ts';
import { loadSum } from '../../../dataplane/checksum.ts';
import { Coalescer } from '../../../dataplane/coalesce.ts';
import { block, FIRST_UPLINK_SCOPE } from '../../../dataplane/counters.ts';
import { Decap } from '../../../dataplane/decap.ts';
import { Device } from '../../../dataplane/device.ts';
import { receiveFrames, takeTapArena } from '../../../dataplane/tap.ts';
import { ReceiveBuffers, UdpReceiver } from '../../../dataplane/uplink/receiver.ts';
import { UdpUplink } from '../../../dataplane/uplink/udp.ts';
import * as libc from '../../../system/libc.ts';
import * as socket from '../../../system/socket.ts';
import {
  assertFrames,
  frame,
  onWire,
  otherFrame,
  packet,
  payload,
  readVnet,
  setPseudo,
  superFrame,
  unfinished,
  vxlan,
} from '../packet.ts';
import { drops, Rig, TestPort, VNI } from '../rig.ts';

const LOOPBACK = { 4: Uint8Array.of(127, 0, 0, 1), 6: Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1) };
const LARGEST_FRAME = 1522;

const rig = new Rig();
const { memory, counters } = rig;
const sum = loadSum(memory);
const nextHops = new Int32Array(rig.nextHops.buffer);
const from = new TestPort(memory);
const to = new TestPort(memory);
const arena = takeTapArena(memory);
const buffers = new ReceiveBuffers(memory);
const batch = new Batch(64);
const opened: number[] = [];
after(() => {
  for (const fd of opened) libc.close(fd);
});

function open(options: Partial<socket.UdpSocketOptions> = {}): number {
  const fd = socket.openUdpSocket({ address: LOOPBACK[4], port: 0, ...options });
  opened.push(fd);
  return fd;
}

function portOf(fd: number): number {
  const address = Buffer.alloc(socket.SOCKADDR);
  assert.equal(libc.getsockname(fd, address, Buffer.from([address.length, 0, 0, 0])), 0);
  return address.readUInt16BE(socket.SOCKADDR_PORT);
}

/** A receiving socket, and an uplink that sends to it. Device 0 sends, device 1 receives. */
function makeLink(version: 4 | 6, gro: boolean, udpGso = true, noChecksum = false) {
  const address = LOOPBACK[version];
  const fd = open({ address, gro, tellsTos: true });
  const receiver = new UdpReceiver(fd, buffers, counters, block(0, FIRST_UPLINK_SCOPE), LARGEST_FRAME);
  const senders = [open({ address, noChecksum }), open({ address, noChecksum })];
  const uplink = new UdpUplink({ senders }, receiver, memory, sum, counters, nextHops, { tunnelGso: false, udpGso });
  const coalescer = new Coalescer(memory, to, sum, counters, block(0, 1), true);
  const device = new Device(1, VNI, block(0, 1), to, coalescer, uplink, rig.records);
  const decap = new Decap(memory, counters, block(0, FIRST_UPLINK_SCOPE), [device], version, rig.sources(), true);
  const port = portOf(fd);
  const nextHop = rig.vtep(version === 4 ? '127.0.0.1' : '::1', { port });
  return { port, uplink, decap, nextHop, senders };
}

type Link = ReturnType<typeof makeLink>;

function send({ uplink, nextHop }: Link, packets: readonly Uint8Array[], hash = 0): void {
  rig.clear();
  from.waiting.push(...packets);
  receiveFrames(from, memory, arena, batch);
  for (let i = 0; i < packets.length; i++) uplink.send(batch, i, nextHop, uplink.entropy(hash), block(0, 0), true);
  uplink.flush();
}

/** What the receiving device's TAP gets of all that waits on the socket. */
function receive({ uplink, decap }: Link): Uint8Array[] {
  while (uplink.receive(batch) > 0) decap.run(batch);
  const { rx_packets = 0, rx_passed = 0, ...uplinkDrops } = rig.uplink(0);
  const device = rig.device(1);
  assert.equal(rx_packets, rx_passed + drops(uplinkDrops, 'rx'));
  assert.equal(rx_passed, device.rx_packets ?? 0);
  assert.equal(device.rx_packets ?? 0, (device.rx_frames ?? 0) + drops(device, 'rx'));
  return to.take();
}

/** Sends one buffer, which the kernel cuts every `size` bytes when that is not 0; the receiver gets it back as one. */
function sendRaw({ senders, port }: Link, bytes: Uint8Array, size = 0): void {
  rig.clear();
  const { MSGHDR, SOCKADDR, CMSG, MSG_NAME, MSG_IOV, MSG_CONTROL } = socket;
  const header = memory.take(MSGHDR + SOCKADDR + CMSG + 16 + 65536);
  const [name, control, iovec, data] = [
    MSGHDR,
    MSGHDR + SOCKADDR,
    MSGHDR + SOCKADDR + CMSG,
    MSGHDR + SOCKADDR + CMSG + 16,
  ].map((offset) => header + offset);
  const { u8, view } = memory;
  u8.fill(0, header, data);
  u8.set(bytes, data);
  memory.setIovec(iovec, 0, data, bytes.length);
  memory.setPointer(header + MSG_NAME, name);
  view.setUint32(header + socket.MSG_NAME_LENGTH, socket.SOCKADDR_IN, true);
  view.setUint16(name, socket.AF_INET, true);
  view.setUint16(name + socket.SOCKADDR_PORT, port);
  u8.set(LOOPBACK[4], name + socket.SOCKADDR_IN_ADDRESS);
  memory.setPointer(header + MSG_IOV, iovec);
  view.setUint32(header + socket.MSG_IOV_LENGTH, 1, true);
  if (size > 0) {
    memory.setPointer(header + MSG_CONTROL, control);
    view.setUint32(header + socket.MSG_CONTROL_LENGTH, CMSG, true);
    view.setUint32(control, socket.CMSG_DATA + 2, true);
    view.setUint32(control + socket.CMSG_LEVEL, socket.SOL_UDP, true);
    view.setUint32(control + socket.CMSG_TYPE, socket.UDP_SEGMENT, true);
    view.setUint16(control + socket.CMSG_DATA, size, true);
  }
  assert.equal(libc.sendmsg(senders[0], memory.address + header, 0), bytes.length, libc.errnoName(libc.errno()));
  memory.give(header, MSGHDR + SOCKADDR + CMSG + 16 + 65536);
}

const v4 = makeLink(4, true);
const withoutGro = makeLink(4, false);

/** Everything that a TAP may hand out crosses, to the byte and in order. */
function assertCarries(link: Link): void {
  const tcp = superFrame(frame({ payload: payload(20_000) }), 1348);
  const udp = superFrame(frame({ protocol: 'udp', version: 6, tags: [3], payload: payload(9000) }), 1200);
  const arp = packet(otherFrame(0x0806, 28));
  const small = [frame({ payload: payload(9) }), frame({ protocol: 'udp' })].map(unfinished);
  const packets = [arp, tcp, small[0], arp, arp, udp, small[1]];
  send(link, packets);
  const { tx_segments = 0, tx_packets } = rig.device(0);
  assert.equal(tx_packets, packets.length + tx_segments);
  const expected = packets.flatMap((bytes) => onWire(bytes));
  assertFrames(
    receive(link).flatMap((bytes) => onWire(bytes)),
    expected,
  );
  assert.equal(rig.device(1).rx_frames, expected.length);
}

test('carries runs, super-frames and all else', () => {
  for (const link of [v4, withoutGro, makeLink(4, true, false)]) assertCarries(link);
});

const hasIpv6 = networkInterfaces().lo?.some(({ family }) => family === 'IPv6');
test('carries the same over IPv6', { skip: !hasIpv6 && 'the loopback device has no IPv6 address' }, () => {
  assertCarries(makeLink(6, true));
});

test('sends the TOS that frames decide, run by run, and reads it', {
  skip: !hasIpv6 && 'the loopback device has no IPv6 address',
}, () => {
  for (const link of [v4, withoutGro, makeLink(6, true), makeLink(6, false)]) {
    rig.clear();
    const tos = [0, 2, 2, 0xb9, 0, 3];
    const frames = tos.map((_, seed) => otherFrame(0x88cc, 100, seed));
    to.take();
    from.waiting.push(...frames.map((bytes) => packet(bytes)));
    receiveFrames(from, memory, arena, batch);
    for (const [i, field] of tos.entries()) {
      batch.marks[i] = field;
      link.uplink.send(batch, i, link.nextHop, 0, block(0, 0), true);
    }
    link.uplink.flush();
    assert.equal(rig.device(0).tx_packets, tos.length);
    const seen: number[] = [];
    while (seen.length < tos.length && link.uplink.receive(batch) > 0) {
      for (let i = 0; i < batch.count; i++) {
        const { train, length } = batch;
        const packets = train[i] > 0 ? Math.ceil(length[i] / train[i]) : 1;
        seen.push(...Array<number>(packets).fill(batch.tos[i]));
      }
    }
    assert.deepEqual(seen, tos);
    batch.marks.fill(0);
  }
});

test('receives a run as one train, and merges its segments again', () => {
  const whole = superFrame(frame({ payload: payload(20_000) }), 1348);
  send(v4, [whole]);
  assert.deepEqual([rig.device(0).tx_writes, rig.device(0).tx_packets], [1, 15]);
  assertFrames(receive(v4), [whole]);
  assert.deepEqual([rig.device(1).rx_packets, rig.device(1).rx_frames, rig.device(1).rx_writes], [15, 15, 1]);
});

test('goes on packet by packet where the kernel does not segment', () => {
  const unchecked = makeLink(4, true, true, true); // UDP_SEGMENT without checksums: EINVAL
  const frames = [1, 2, 3].map((seed) => otherFrame(0x88cc, 100, seed));
  for (let round = 0; round < 2; round++) {
    send(
      unchecked,
      frames.map((bytes) => packet(bytes)),
    );
    assert.deepEqual([rig.device(0).tx_writes, rig.device(0).tx_packets], [4, 3], 'another run is tried as one');
    assertFrames(
      receive(unchecked),
      frames.map((bytes) => packet(bytes)),
    );
  }
});

test('counts what the kernel refuses, packet by packet', () => {
  const nowhere = { ...v4, nextHop: rig.vtep('255.255.255.255', { port: 9 }) }; // EACCES without SO_BROADCAST
  send(
    nowhere,
    [1, 2, 3].map((seed) => packet(otherFrame(0x88cc, 100, seed))),
  );
  assert.deepEqual(rig.device(0), { tx_refused: 3, tx_writes: 4 });
  const large = frame({ protocol: 'udp', payload: payload(65_490) });
  send(v4, [packet(large)]);
  assert.deepEqual(rig.device(0), { tx_too_big: 1, tx_writes: 1 });
  assertFrames(receive(v4), []);
});

test("takes a peer's super-frame, which a virtual link hands over whole, for what it is", () => {
  for (const protocol of ['tcp', 'udp'] as const) {
    for (const version of [4, 6] as const) {
      const whole = superFrame(frame({ protocol, version, payload: payload(50_000) }), 1340);
      const datagram = vxlan(VNI, whole.subarray(12));
      // With UDP_GRO on, the control message carries the inner segment size.
      sendRaw(v4, datagram, 1340);
      assertFrames(receive(v4), [whole]);
      assert.equal(rig.device(1).rx_frames, 1);
      // Without one the size is not known, which TCP does not mind. UDP's is one large datagram then.
      sendRaw(v4, datagram);
      const vnet = readVnet(whole, false);
      const single = { ...vnet, type: 0, size: 0, headerLength: 0 };
      assertFrames(receive(v4), [packet(whole.subarray(12), protocol === 'tcp' ? { ...vnet, size: 1220 } : single)]);
    }
  }
});

test('does not take a large packet for a super-frame when its checksum is finished', () => {
  for (const protocol of ['tcp', 'udp'] as const) {
    const large = frame({ protocol, payload: payload(8000) });
    sendRaw(v4, vxlan(VNI, large));
    assertFrames(receive(v4), [packet(large)]);
    const damaged = large.slice();
    damaged[5000] ^= 1;
    sendRaw(v4, vxlan(VNI, damaged));
    assertFrames(receive(v4), [packet(damaged)], 'the receiver is to see that it is wrong');
  }
  // A train whose first packet claims to be all of it.
  const lying = frame({ payload: payload(3000) });
  const pieces = [0, 1, 2].map((i) => vxlan(VNI, lying).subarray(1000 * i, 1000 * i + 1000));
  sendRaw(v4, Buffer.concat(pieces), 1000);
  assertFrames(receive(v4), [packet(pieces[0].subarray(8))]);
  assert.deepEqual(rig.uplink(0), { rx_packets: 3, rx_passed: 1, rx_unknown_vni: 2 });
});

test('hands an unfinished checksum to the kernel', () => {
  const small = frame({ payload: payload(500) });
  sendRaw(v4, vxlan(VNI, setPseudo(small)));
  assertFrames(receive(v4), [unfinished(small)]);
});

test('drops empty and truncated datagrams, and counts each packet of a train', () => {
  const whole = vxlan(VNI, otherFrame(0x0806, 28));
  for (let length = 0; length < 22; length++) {
    sendRaw(v4, whole.subarray(0, length));
    assertFrames(receive(v4), []);
    const name = length < 8 ? 'rx_invalid_header' : 'rx_inner_truncated';
    assert.equal({ ...rig.uplink(0), ...rig.device(1) }[name], 1, `${length} bytes`);
  }
  sendRaw(v4, Buffer.concat([whole, whole, whole.subarray(0, 5)]), whole.length);
  assert.equal(receive(v4).length, 2);
  assert.deepEqual(rig.uplink(0), { rx_packets: 3, rx_passed: 2, rx_invalid_header: 1 });
});

test('reads more datagrams than one call takes', () => {
  const many = Array.from({ length: 40 }, (_, i) => packet(otherFrame(0x88cc, 40 + i)));
  send(withoutGro, many);
  assertFrames(receive(withoutGro), many);
});
