import assert from 'node:assert/strict';
import test from 'node:test';
import { type Offender, Offenders } from '../../control/offenders.ts';

const seen = (n: number, time: number): Offender => ({
  ...{ src: `192.0.2.${n}`, mac: '02:00:00:00:00:01', reason: 'rx_unknown_vtep', count: 2 },
  ...{ time, length: 64, sample: '0800' },
});

test('the last ones first, each with all its packets', () => {
  const offenders = new Offenders();
  for (const [time, n] of [1, 2, 1].entries()) offenders.note(7, seen(n, time));
  assert.deepEqual(offenders.of(7), [{ ...seen(1, 2), count: 4 }, seen(2, 1)]);
  assert.deepEqual(offenders.of(8), []);
});

test('of many only the last are kept, and nothing of a device that went', () => {
  const offenders = new Offenders();
  for (let n = 1; n <= 100; n++) offenders.note(7, seen(n, n));
  assert.deepEqual(
    offenders.of(7).map(({ time }) => time),
    Array.from({ length: 16 }, (_, i) => 100 - i),
  );
  offenders.forget(7);
  assert.deepEqual(offenders.of(7), []);
});
