import assert from 'node:assert/strict';
import test from 'node:test';
import { Sampler } from '../../control/capture/sampler.ts';
import { Samples } from '../../control/capture/samples.ts';
import { allocateRing, RECORD_OUTER, RECORD_RECEIVED, RingReader } from '../../dataplane/record/ring.ts';
import { frame, outerFrame, payload, vxlan } from '../dataplane/packet.ts';
import { PORT } from '../dataplane/rig.ts';
import { recorder } from './recorder.ts';

const NAMES = {
  device: (index: number) => (index === 0 ? 'vx0' : undefined),
  uplink: () => ({ name: 'eth0', kind: 'redirect', local: '192.0.2.1' }),
  nextHop: () => 'VTEP 192.0.2.2',
  deviceOf: (_: number, vni: number) => (vni === 7 ? { index: 0, name: 'vx0' } : undefined),
};
const FRAME = frame({ protocol: 'udp', payload: payload(58) }); // 100 bytes

function recorded() {
  const ring = allocateRing(1 << 16);
  const spec = { id: 1, ring, device: -1, vni: -1, filter: '', outerFilter: '', snapLength: 192 };
  return { record: recorder(spec), reader: new RingReader(ring) };
}

test('the rates of VTEPs follow from the samples and the counters', () => {
  const { record, reader } = recorded();
  const samples = new Samples(NAMES);
  const packet = outerFrame(vxlan(7, FRAME), PORT);
  for (let i = 0; i < 3; i++) record(packet, RECORD_OUTER | RECORD_RECEIVED);
  // Two packets at once, sent to the address that a received packet has as its destination.
  const run = outerFrame(Buffer.concat([vxlan(7, FRAME), vxlan(7, FRAME)]), PORT);
  record(run, RECORD_OUTER, { gsoSize: 8 + FRAME.length });
  record(outerFrame(vxlan(8, FRAME), PORT), RECORD_OUTER | RECORD_RECEIVED); // of no device
  record(Uint8Array.of(1, 2, 3), RECORD_OUTER);
  samples.take(reader);
  const rates = samples.rates(new Map([['vx0', { tx: 20, rx: 300 }]]));
  const [source, destination] = [packet.subarray(26, 30).join('.'), packet.subarray(30, 34).join('.')];
  const nothing = { packets: 0, bytes: 0 };
  assert.deepEqual(rates, [
    { dev: 'vx0', address: source, tx: nothing, rx: { packets: 300, bytes: 300 * FRAME.length } },
    { dev: 'vx0', address: destination, tx: { packets: 20, bytes: 20 * FRAME.length }, rx: nothing },
  ]);
  assert.deepEqual(samples.rates(new Map()), [], 'a period of its own');
});

test('the last drop of each reason is kept, by device', () => {
  const { record, reader } = recorded();
  const samples = new Samples(NAMES);
  record(frame({ from: 3 }), 0, { drop: 'tx_no_remote', device: 0 });
  record(FRAME, 0, { drop: 'tx_no_remote', device: 0 });
  record(outerFrame(vxlan(8, FRAME), PORT), RECORD_OUTER | RECORD_RECEIVED, { drop: 'rx_unknown_vni' });
  record(FRAME, 0, { device: 0 });
  samples.take(reader);
  const [noRemote, unknown, ...rest] = samples.drops;
  assert.deepEqual(rest, []);
  assert.deepEqual(
    [
      noRemote.dev,
      noRemote.reason,
      noRemote.hex,
      noRemote.length,
      noRemote.interface,
      noRemote.direction,
      noRemote.time,
    ],
    ['vx0', 'tx_no_remote', Buffer.from(FRAME).toString('hex'), FRAME.length, 'vx0', 'out', 1000],
  );
  assert.match(noRemote.comments[0], /^dropped, tx_no_remote: /);
  assert.deepEqual(
    [unknown.dev, unknown.reason, unknown.interface, unknown.direction],
    [null, 'rx_unknown_vni', 'eth0', 'in'],
  );
});

/** A sampler over a device with so many packets a second; `share`: the part of the time in which it listens. */
function fakeSampler(rate: number, drops = 0) {
  let [now, heard, since] = [0, 0, -1];
  const stop = (): void => {
    if (since >= 0) heard += now - since;
    since = -1;
  };
  const sampler = new Sampler({
    workers: 1,
    names: NAMES,
    passed: () => [{ name: 'vx0', tx: (rate * now) / 1000, rx: 0, drops: (drops * now) / 1000 }],
    nextId: () => 1,
    listen: async () => {
      assert.equal(since, -1, 'once at a time');
      since = now;
    },
    unlisten: async () => stop(),
    clock: {
      now: () => now,
      sleep: async (milliseconds) => {
        now += milliseconds;
        if (now < 60_000) sampler.ask();
      },
    },
  });
  return { sampler, now: () => now, share: () => heard / now, isListening: () => since >= 0 };
}

test('all packets are looked at when few pass, some when many do, and none when nobody asks', async () => {
  const shares: number[] = [];
  for (const [rate, drops] of [
    [100, 0],
    [300_000, 0],
    [300_000, 10],
  ]) {
    const { sampler, now, share, isListening } = fakeSampler(rate, drops);
    assert.deepEqual(sampler.ask(), { drops: [], peers: [] });
    while (now() < 62_000) await new Promise(setImmediate);
    await sampler.close();
    assert.ok(now() < 64_000, 'it ends by itself');
    assert.equal(isListening(), false);
    shares.push(share());
  }
  const [few, many, dropping] = shares;
  assert.ok(few > 0.98, `${few} of the time`);
  assert.ok(many > 0 && many < 0.02, `${many} of the time`);
  assert.ok(dropping > many && dropping < 0.2, `${dropping} of the time`);
});

test('with too many others listening it tries again later', async () => {
  let now = 0;
  let refused = 0;
  const sampler = new Sampler({
    ...{ workers: 1, names: NAMES, passed: () => [], nextId: () => 1 },
    listen: async () => {
      if (refused++ < 3) throw new RangeError('more than 8 captures at a time');
    },
    unlisten: async () => {},
    clock: {
      now: () => now,
      sleep: async (milliseconds) => {
        now += milliseconds;
      },
    },
  });
  sampler.ask();
  while (now < 3_000) await new Promise(setImmediate);
  await sampler.close();
  assert.ok(refused > 3, `${refused} times`);
});
