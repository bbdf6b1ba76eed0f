import assert from 'node:assert/strict';
import test from 'node:test';
import { Batch } from '../../../dataplane/batch.ts';
import { block } from '../../../dataplane/counters.ts';
import { receiveFrames, takeTapArena } from '../../../dataplane/tap.ts';
import {
  assertFrames,
  frame,
  hex,
  outerFrame,
  packet,
  payload,
  referenceSum,
  setPseudo,
  superFrame,
  unfinished,
  vxlan,
} from '../packet.ts';
import { PORT, Receiving, VNI } from '../rig.ts';

const receiving = new Receiving();
const { rig } = receiving;

// Sending.

const batch = new Batch(64);
const arena = takeTapArena(rig.memory);

/** What the uplink writes for a TAP's packet, as hex; IPv4 id and checksum, which differ from run to run, as zeros. */
function sent(bytes: Uint8Array, nextHop: number): string {
  const { uplink, taps, port } = receiving;
  taps[0].waiting.push(bytes);
  receiveFrames(taps[0], rig.memory, arena, batch);
  uplink.send(batch, 0, nextHop, 0x1234, block(0, 0), true);
  uplink.flush();
  const [written, ...more] = port.take();
  assert.equal(more.length, 0);
  if (written[24 + 12] === 0x08) {
    assert.equal(referenceSum(written.subarray(38, 58)), 0xffff, 'IPv4 checksum');
    written.fill(0, 42, 44);
    written.fill(0, 48, 50);
  }
  return hex(written);
}

const text = (...parts: string[]) => parts.join('').replace(/\s/g, '');

// A frame of 17 bytes, so that a byte that is not written, and an odd length, show.
const SHORT = '020000000002 020000000001 88cc 010203';
const short = packet(Uint8Array.from(Buffer.from(text(SHORT), 'hex')));
const ETHERNET = '02000000000a 02000000000b';
const VXLAN = '08000000 abcdef00';

test('writes every byte of an outer IPv4 packet', () => {
  const ip = (length: string) => `0800 4500 ${length} 0000 4000 40 11 0000 c0000201 c0000202`;
  // The UDP checksum is left to the kernel: it holds the sum of c000 0201 c000 0202 0011 0021.
  assert.equal(
    sent(short, rig.vtep('192.0.2.2', { df: true })),
    text('0100 0000 0000 2200 0600', '00'.repeat(14), ETHERNET, ip('0035'), '1234 2118 0021 8436', VXLAN, SHORT),
  );
  assert.equal(
    sent(short, rig.vtep('192.0.2.2', { udpChecksum: false, vni: 1, df: true })),
    text('00'.repeat(24), ETHERNET, ip('0035'), '1234 2118 0021 0000', '08000000 00000100', SHORT),
  );
});

test('writes every byte of an outer IPv6 packet', () => {
  const ip = '86dd 60000000 0021 11 40 20010db8000000000000000000000001 20010db8000000000000000000000002';
  // 2001 0db8 0001 2001 0db8 0002 0000 0021 0000 0011 is 5ba7.
  assert.equal(
    sent(short, rig.vtep('2001:db8::2')),
    text('0100 0000 0000 3600 0600', '00'.repeat(14), ETHERNET, ip, '1234 2118 0021 5ba7', VXLAN, SHORT),
  );
});

test('writes every byte of a tunnel super-frame', () => {
  const inner = superFrame(frame({ payload: payload(3) }), 2);
  const ip = '0800 4500 005d 0000 4000 40 11 0000 c0000201 c0000202';
  // hdr_len 50 + 54, gso_size 2, csum_start 50 + 34, csum_offset 16, outer transport at 34, inner network at 50 + 14.
  assert.equal(
    sent(inner, rig.vtep('192.0.2.2', { df: true })),
    text(
      '09 21 6800 0200 5400 1000 0000 00000000 0000 0000 2200 4000',
      ETHERNET,
      ip,
      '1234 2118 0049 845e',
      VXLAN,
      hex(inner.subarray(12)),
    ),
  );
  assert.equal(
    sent(inner, rig.vtep('192.0.2.2', { udpChecksum: false, df: true })),
    text(
      '01 21 6800 0200 5400 1000 0000 00000000 0000 0000 2200 4000',
      ETHERNET,
      ip,
      '1234 2118 0049 0000',
      VXLAN,
      hex(inner.subarray(12)),
    ),
  );
});

// Receiving.

const inner = frame({ payload: payload(100) });
const tunnel = (bytes: Uint8Array, vnet = {}) => packet(bytes, vnet, true);
const good = (spec = {}, vnet = {}) => tunnel(outerFrame(vxlan(VNI, inner), PORT, spec), vnet);

/** That the packet is dropped, under exactly this name, and nothing else is counted. */
function assertDropped(bytes: Uint8Array, name: string, message?: string): void {
  assertFrames(receiving.receive([bytes]), [], message);
  assert.deepEqual(receiving.counts(), { arrived: 1, [name]: 1 }, message);
}

function assertDelivered(bytes: Uint8Array, expected = inner, message?: string): void {
  assertFrames(receiving.receive([bytes]), [packet(expected)], message);
  assert.deepEqual(receiving.counts(), { arrived: 1, rx_packets: 1, rx_frames: 1 }, message);
}

function changed(bytes: Uint8Array, at: number, ...values: number[]): Uint8Array {
  const result = bytes.slice();
  result.set(values, at);
  return result;
}

test('takes packets over IPv4 and IPv6, with and without a UDP checksum', () => {
  assertDelivered(good());
  assertDelivered(good({ version: 6 }));
  assertDelivered(changed(good(), 24 + 40, 0, 0));
  assertDropped(changed(good({ version: 6 }), 24 + 60, 0, 0), 'rx_outer_checksum', 'zero over IPv6 (RFC 8200, 8.1)');
  assertDelivered(tunnel(Buffer.concat([good().subarray(24), Buffer.alloc(5)])), inner, 'Ethernet padding');
});

test('drops a packet that ends early, wherever it ends', () => {
  for (const whole of [good(), good({ version: 6 }), good({}, { flags: 2 })]) {
    for (let length = 1; length < whole.length; length++) {
      assertDropped(whole.subarray(0, length), 'rx_outer_malformed', `${length} bytes`);
    }
  }
});

test('drops what is no plain UDP packet to the port', () => {
  const v4 = good();
  const v6 = good({ version: 6 });
  const [ip, udp4, udp6] = [38, 58, 78];
  const bad: Record<string, Uint8Array> = {
    'ARP ethertype': changed(v4, 36, 0x08, 0x06),
    'VLAN tag': good({ tags: [5] }),
    'IPv6 in an IPv4 frame': changed(v4, ip, 0x65),
    'IPv4 in an IPv6 frame': changed(v6, ip, 0x45),
    'IPv4 options': good({ ipOptions: new Uint8Array(4) }),
    'short IPv4 header': changed(v4, ip, 0x44),
    'IPv6 extension header': good({ version: 6, ipOptions: new Uint8Array(8) }),
    'first fragment': changed(v4, ip + 6, 0x20, 0),
    'later fragment': changed(v4, ip + 6, 0, 1),
    TCP: changed(v4, ip + 9, 6),
    'TCP over IPv6': changed(v6, ip + 6, 6),
    'other port': good({ destinationPort: PORT + 1 }),
    'other port over IPv6': good({ version: 6, destinationPort: PORT + 1 }),
    'IP length beyond the end': changed(v4, ip + 2, 0xff, 0xff),
    'IP length below the header': changed(v4, ip + 2, 0, 19),
    'IP length below the UDP length': changed(v4, ip + 2, 0, 100),
    'IPv6 length beyond the end': changed(v6, ip + 4, 0xff, 0xff),
    'IPv6 length below the UDP length': changed(v6, ip + 4, 0, 100),
    'UDP length beyond the end': changed(v4, udp4 + 4, 0xff, 0xff),
    'UDP length below its header': changed(v4, udp4 + 4, 0, 7),
    'UDP length over IPv6': changed(v6, udp6 + 4, 0, 7),
  };
  for (const [name, bytes] of Object.entries(bad)) assertDropped(bytes, 'rx_outer_malformed', name);
});

test('delivers no damaged byte', () => {
  for (const whole of [good(), good({ version: 6 })]) {
    for (let at = 24; at < whole.length; at++) {
      const written = receiving.receive([changed(whole, at, whole[at] ^ 0x40)]);
      const { arrived, ...rest } = receiving.counts();
      assert.equal(arrived, 1);
      if (rest.rx_frames) assertFrames(written, [packet(inner)], `byte ${at}`);
      else
        assert.equal(
          Object.values(rest).reduce((sum = 0, n = 0) => sum + n),
          1,
          `byte ${at}`,
        );
    }
  }
});

test('trusts a checksum that the kernel has verified, or has yet to compute', () => {
  const wrong = changed(good(), 24 + 40, 0x12, 0x34);
  assertDropped(wrong, 'rx_outer_checksum');
  assertDelivered(changed(wrong, 0, 2));
  const outer = setPseudo(good().subarray(24));
  assertDelivered(tunnel(outer, { flags: 1, start: 34, offset: 6 }));
});

test('drops a packet whose IPv4 header is damaged, whatever is known of its UDP checksum', () => {
  const damaged = changed(good(), 24 + 22, 63); // TTL
  assertDropped(damaged, 'rx_outer_checksum');
  assertDropped(changed(damaged, 0, 2), 'rx_outer_checksum');
});

test('keeps the metadata of the inner frame', () => {
  for (const version of [4, 6] as const) {
    for (const original of [unfinished(inner), superFrame(frame({ payload: payload(5000) }), 1000)]) {
      const [flags, type] = original;
      const view = new DataView(original.buffer);
      const get = (at: number) => view.getUint16(at, true);
      const outer = outerFrame(vxlan(VNI, original.subarray(12)), PORT, { version });
      const length = version === 4 ? 50 : 70;
      const vnet = {
        flags: flags | 8,
        type: type && type | (version === 4 ? 0x20 : 0x40),
        headerLength: get(2) && get(2) + length,
        size: get(4),
        start: get(6) + length,
        offset: get(8),
        outerTransport: length - 16,
        innerNetwork: length + 14,
      };
      assertFrames(receiving.receive([tunnel(outer, vnet)]), [original]);
      assert.deepEqual(receiving.counts(), { arrived: 1, rx_packets: 1, rx_frames: 1 });
    }
  }
});

test('reads no more than a round takes, and the rest in the next', () => {
  const many = Array.from({ length: 150 }, () => good());
  assert.equal(receiving.receive(many).length, 150);
  const large = outerFrame(vxlan(VNI, frame({ payload: payload(60_000) })), PORT);
  assert.equal(receiving.receive(Array.from({ length: 70 }, () => tunnel(large, { flags: 2 }))).length, 70);
});
