import assert from 'node:assert/strict';
import test from 'node:test';
import { type Offload, segmentsOf } from '../../packets/segments.ts';
import {
  assertFrames,
  CWR,
  FIN,
  frame,
  onWire,
  outerFrame,
  PSH,
  packet,
  payload,
  readVnet,
  setPseudo,
  superFrame,
  unfinished,
  vxlan,
} from '../dataplane/packet.ts';

/** Of a packet with its virtio header in front. */
function offloadOf(bytes: Uint8Array, isOuter: boolean): [Uint8Array, Offload] {
  const vnet = readVnet(bytes, isOuter);
  const type = vnet.type & 0x1f;
  return [
    bytes.subarray(isOuter ? 24 : 12),
    {
      isUnfinished: (vnet.flags & 1) !== 0,
      segments: type === 0 ? 'none' : type === 5 ? 'udp' : 'tcp',
      isTunnel: (vnet.type & 0x60) !== 0,
      ...{ size: vnet.size, checksumStart: vnet.start, checksumOffset: vnet.offset },
    },
  ];
}

/** What a NIC makes of the same packet, by code that shares nothing with this. */
function check(bytes: Uint8Array, isOuter = false): void {
  assertFrames(segmentsOf(...offloadOf(bytes, isOuter)), onWire(bytes, isOuter));
}

test('super-frames of TCP and UDP', () => {
  for (const version of [4, 6] as const) {
    for (const tags of [[], [5], [5, 6]]) {
      for (const length of [1001, 3000]) {
        check(
          superFrame(frame({ version, tags, payload: payload(length), flags: FIN | PSH | CWR | 16, id: 0xffff }), 1000),
        );
        check(
          superFrame(frame({ version, tags, protocol: 'udp', payload: payload(length), dontFragment: false }), 1000),
        );
      }
    }
    check(
      superFrame(frame({ version, tcpOptions: Uint8Array.of(1, 1, 8, 10, ...payload(8)), payload: payload(500) }), 99),
    );
  }
});

test('unfinished checksums alone', () => {
  for (const version of [4, 6] as const) {
    check(unfinished(frame({ version, payload: payload(77) })));
    check(unfinished(frame({ version, protocol: 'udp', payload: payload(78) })));
    check(packet(frame({ version })));
  }
});

test('super-frames with outer headers, and runs', () => {
  for (const version of [4, 6] as const) {
    const outer = version === 4 ? 50 : 70;
    const inner = superFrame(frame({ payload: payload(5000) }), 1000).subarray(12);
    const vnet = {
      flags: 9,
      headerLength: outer + 54,
      size: 1000,
      start: outer + 34,
      offset: 16,
      outerTransport: outer - 16,
      innerNetwork: outer + 14,
    };
    const whole = setPseudo(outerFrame(vxlan(7, inner), 8472, { version }));
    check(packet(whole, { ...vnet, type: version === 4 ? 0x21 : 0x41 }, true), true);
    const frames = [1, 2, 3].map((port) => vxlan(7, frame({ sourcePort: port, payload: payload(200) })));
    const run = setPseudo(outerFrame(Buffer.concat(frames), 8472, { version }));
    const size = frames[0].length;
    check(packet(run, { flags: 1, type: 5, headerLength: outer - 8, size, start: outer - 16, offset: 6 }, true), true);
  }
});

test('metadata that contradicts the packet leaves it as it is', () => {
  const bytes = frame({ payload: payload(100) });
  const offload: Offload = {
    isUnfinished: true,
    segments: 'tcp',
    isTunnel: false,
    size: 10,
    checksumStart: 34,
    checksumOffset: 16,
  };
  for (const wrong of [{ size: 0 }, { checksumStart: 10 }, { checksumStart: 1000 }, { isTunnel: true }]) {
    assert.deepEqual(segmentsOf(bytes, { ...offload, ...wrong }), [bytes]);
  }
});
