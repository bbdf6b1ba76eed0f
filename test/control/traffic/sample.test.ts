import assert from 'node:assert/strict';
import test from 'node:test';
import { TrafficSampler } from '../../../control/traffic/sample.ts';
import { RECORD_OUTER, RECORD_RECEIVED } from '../../../dataplane/record/ring.ts';
import { frame, outerFrame, payload, vxlan } from '../../dataplane/packet.ts';
import { PORT } from '../../dataplane/rig.ts';
import { recorder } from '../recorder.ts';

const NAMES = {
  device: (index: number) => (index === 0 ? 'vx0' : undefined),
  deviceOf: (_: number, vni: number) => (vni === 7 ? 'vx0' : undefined),
  peer: () => '192.0.2.2',
};
const FRAME = frame({ protocol: 'udp', payload: payload(58), sourcePort: 1, destinationPort: 2 }); // 100 bytes
const RECEIVED = RECORD_OUTER | RECORD_RECEIVED;

test('what passes while one looks is added up by flow and VTEP, on one side each way', () => {
  const sampler = new TrafficSampler(1, 1, undefined, NAMES);
  const record = recorder(sampler.specs[0]);
  const now = () => performance.timeOrigin + performance.now();
  record(FRAME, 0, { device: 0, time: now() }); // too early
  sampler.begin();
  record(FRAME, 0, { device: 0, time: now() });
  const packet = outerFrame(vxlan(7, FRAME), PORT);
  record(packet, RECORD_OUTER, { time: now() }); // the same one, on its way out
  record(packet, RECEIVED, { time: now() });
  // Three packets at once share Ethernet, IP and UDP headers.
  const run = Buffer.concat([1, 2, 3].map(() => vxlan(7, FRAME)));
  record(outerFrame(run, PORT), RECEIVED, { gsoSize: 8 + FRAME.length, time: now() });
  record(outerFrame(vxlan(8, FRAME), PORT), RECEIVED, { time: now() }); // of no device
  record(packet.subarray(0, 49), RECEIVED, { time: now() });
  sampler.end();
  sampler.drain();
  const { flows, peers, totals, seen, lost } = sampler.result(10);
  assert.deepEqual([seen, lost], [3, 0]);
  const sent = { packets: 1, bytes: 100, seen: 1 };
  const received = { packets: 4, bytes: 400, seen: 2 };
  const source = packet.subarray(26, 30).join('.');
  const flow = { dev: 'vx0', protocol: 'UDP', src: '10.0.0.1:1', dst: '10.0.0.2:2' };
  assert.deepEqual(flows, [
    { ...flow, direction: 'rx', peer: source, ...received },
    { ...flow, direction: 'tx', peer: '', ...sent },
  ]);
  assert.deepEqual(totals, [{ dev: 'vx0', tx: sent, rx: received }]);
  assert.deepEqual(peers, [{ dev: 'vx0', dst: source, tx: { packets: 0, bytes: 0, seen: 0 }, rx: received }]);
});

test('what was dropped has not passed; of a run or a flood what was not', () => {
  const sampler = new TrafficSampler(1, 1, undefined, NAMES);
  const record = recorder(sampler.specs[0]);
  const time = () => performance.timeOrigin + performance.now();
  sampler.begin();
  record(FRAME, 0, { device: 0, drop: 'tx_no_remote', time: time() });
  record(FRAME, 0, { device: 0, drop: 'tx_unresolved', copies: 1, time: time() }); // it went to another VTEP
  record(outerFrame(vxlan(7, FRAME), PORT), RECEIVED, { drop: 'rx_unknown_vtep', time: time() });
  const run = outerFrame(Buffer.concat([1, 2, 3, 4].map(() => vxlan(7, FRAME))), PORT);
  record(run, RECEIVED, { gsoSize: 8 + FRAME.length, drop: 'rx_invalid_source_mac', time: time() });
  record(run, RECEIVED, { gsoSize: 8 + FRAME.length, drop: 'rx_unknown_vtep', dropped: 4, time: time() });
  sampler.end();
  sampler.drain();
  const { totals, seen } = sampler.result(10);
  assert.equal(seen, 2);
  assert.deepEqual(totals, [
    { dev: 'vx0', tx: { packets: 1, bytes: 100, seen: 1 }, rx: { packets: 3, bytes: 300, seen: 1 } },
  ]);
});
