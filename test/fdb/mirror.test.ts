import assert from 'node:assert/strict';
import test from 'node:test';
import { FdbError } from '../../fdb/error.ts';
import type { FdbMirror } from '../../fdb/mirror.ts';
import { TEMPLATE_WORDS, type Template, VIA_HOST } from '../../fdb/nexthops.ts';
import { FdbWriter } from '../../fdb/writer.ts';
import { random } from '../dataplane/rig.ts';

const TEMPLATE: Template = {
  ...{ outerLength: 50, ipSum: 1, pseudoSum: 2, uplink: 0, flags: 0, mtu: 1500 },
  words: new Int32Array(TEMPLATE_WORDS).fill(7),
};

/** What a mirror has been told. */
class Told implements FdbMirror {
  /** Destination and state. */
  readonly entries = new Map<string, readonly [number, number]>();
  readonly nextHops = new Map<number, Template>();
  readonly #writer: FdbWriter;

  /** Milliseconds at which it has sent to every MAC, and heard it. */
  at = { used: 0, heard: 0 };

  constructor(writer: FdbWriter) {
    this.#writer = writer;
  }

  stamps(): { used: number; heard: number } {
    return this.at;
  }

  setEntry(device: number, macHigh: number, macLow: number, destination: number, state: number): void {
    const key = `${device} ${macHigh} ${macLow}`;
    if (destination === 0) assert.ok(this.entries.delete(key), 'an entry that it was told of');
    else this.entries.set(key, [destination, state]);
  }

  setNextHop(index: number): void {
    const template = this.#writer.nextHops.resolved(index);
    if (template) this.nextHops.set(index, template);
    else this.nextHops.delete(index);
  }
}

test('a mirror that was there all along and one that is told afterwards know the same', () => {
  const writer = new FdbWriter({ onNextHop() {}, onRelease() {} }, { limit: 1000, grace: 0 });
  for (const index of [1, 2]) writer.addDevice({ index, name: `vx${index}`, vni: index, port: 8472, family: 4 });
  const told = new Told(writer);
  writer.mirror = told;
  const below = random(1);
  for (let now = 0; now < 5000; now++) {
    const device = 1 + below(2);
    const mac = `${['02', '01', '00'][below(3)]}:00:00:00:00:${below(30).toString(16).padStart(2, '0')}`;
    const state = (['permanent', 'static', 'dynamic'] as const)[below(3)];
    const entry = { mac, dst: `192.0.2.${1 + below(9)}`, state };
    const change = (['add', 'append', 'replace', 'del'] as const)[below(4)];
    try {
      writer[change](device, entry, now);
    } catch (error) {
      if (!(error instanceof FdbError)) throw error;
    }
    const index = writer.nextHops.find({ device, ip: entry.dst, port: 8472, vni: device, via: '' });
    if (index > 0) writer.publish(index, TEMPLATE, below(2) ? undefined : VIA_HOST);
    if (below(500) === 0) writer.flush(device, now);
  }
  const late = new Told(writer);
  for (const device of [1, 2]) writer.replay(device, late);
  assert.ok(late.entries.size > 20, `${late.entries.size} entries`);
  assert.deepEqual(new Map([...told.entries].sort()), new Map([...late.entries].sort()));
  for (const [index, template] of late.nextHops) assert.deepEqual(told.nextHops.get(index), template);
  for (const device of [1, 2]) writer.flush(device, 6000);
  assert.deepEqual([told.entries.size, told.nextHops.size], [0, 0]);
});

test('an entry that only a mirror has heard does not age', () => {
  const writer = new FdbWriter({ onNextHop() {}, onRelease() {} }, { limit: 10, grace: 0 });
  writer.addDevice({ index: 1, name: 'vx1', vni: 1, port: 8472, family: 4 });
  const told = new Told(writer);
  writer.mirror = told;
  writer.learn(1, 0x0200, 1, '192.0.2.1', '', 0);
  told.at = { used: 0, heard: 250_000 };
  writer.age(() => 300, 300_000);
  assert.equal(told.entries.size, 1);
  writer.age(() => 300, 549_000);
  assert.equal(told.entries.size, 1);
  writer.age(() => 300, 550_000);
  assert.equal(told.entries.size, 0);
});

test('what only a mirror has seen is shown, and stays when it forgets', () => {
  const writer = new FdbWriter({ onNextHop() {}, onRelease() {} }, { limit: 10, grace: 0 });
  writer.addDevice({ index: 1, name: 'vx1', vni: 1, port: 8472, family: 4 });
  const told = new Told(writer);
  writer.mirror = told;
  writer.learn(1, 0x0200, 1, '192.0.2.1', '', 0);
  const ages = () => writer.show(1, 400_000).map(({ used, updated }) => [used, updated]);
  assert.deepEqual(ages(), [[400, 400]]);
  told.at = { used: 390_000, heard: 250_000 };
  assert.deepEqual(ages(), [[10, 150]]);
  told.at = { used: 395_000, heard: 399_000 };
  writer.catchUp(1);
  told.at = { used: 0, heard: 0 };
  assert.deepEqual(ages(), [[5, 1]]);
  writer.age(() => 300, 698_000);
  assert.equal(told.entries.size, 1);
});
