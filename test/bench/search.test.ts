import assert from 'node:assert/strict';
import test from 'node:test';
import { noRate } from '../../bench/measures/udp.ts';
import { highestRate, type Trial } from '../../bench/search.ts';

/** A link that carries `capacity` and loses the rest; its sender can do `sender` at most. */
function link(capacity: number, sender: number) {
  const asked: number[] = [];
  const trial = async (rate: number): Promise<Trial> => {
    asked.push(rate);
    const offered = rate === 0 ? sender : Math.min(rate, sender);
    const delivered = Math.min(offered, capacity);
    return { offered, delivered, loss: 1 - delivered / offered };
  };
  return { asked, trial };
}

test('finds what a link carries, to the resolution', async () => {
  for (const capacity of [12, 100, 455]) {
    const { rate, flood } = await highestRate(link(capacity, 480).trial, {
      trials: 30,
      limit: 0.001,
      resolution: 0.01,
    });
    assert.ok(rate! <= capacity * 1.001 && rate! > capacity * 0.98, `${rate} of ${capacity}`);
    assert.equal(flood.offered, 480);
  }
});

test('a flood that gets through is the answer', async () => {
  const { trial, asked } = link(500, 480);
  assert.deepEqual(await highestRate(trial, { trials: 8, limit: 0.001 }), {
    ...{ rate: 480, lowest: 480 },
    flood: { offered: 480, delivered: 480, loss: 0 },
    trials: 1,
  });
  assert.deepEqual(asked, [0]);
});

test('a link that does better when less is offered', async () => {
  // Of a flood a tenth arrives; 200 would.
  const trial = async (rate: number): Promise<Trial> => {
    const offered = rate === 0 ? 1000 : rate;
    const delivered = offered <= 200 ? offered : 100;
    return { offered, delivered, loss: 1 - delivered / offered };
  };
  const { rate } = await highestRate(trial, { trials: 20, limit: 0.001, resolution: 0.01 });
  assert.ok(rate! > 195 && rate! <= 200, `${rate}`);
});

test('no more trials than allowed, and no rate when all of them lost too much', async () => {
  const asked: number[] = [];
  const trial = async (rate: number): Promise<Trial> => {
    asked.push(rate);
    return { offered: rate || 100, delivered: (rate || 100) * 0.99, loss: 0.01 };
  };
  const search = await highestRate(trial, { trials: 5, limit: 0.001 });
  assert.deepEqual([search.rate, search.lowest, search.trials], [undefined, Math.min(...asked.slice(1)), 5]);
  assert.equal(search.flood.delivered, 99);
  assert.equal(asked.length, 5);
  assert.equal(noRate({ trials: 5, lowest: 1.234 }), 'each of 5 trials, down to 1.2 kpps, lost more than 0.1 %');
});

test('a loss that does not come again says nothing about the rate', async () => {
  const { trial, asked } = link(100, 480);
  const failed = new Set<number>();
  const unlucky = async (rate: number): Promise<Trial> => {
    if (rate === 0 || failed.has(rate)) return trial(rate);
    failed.add(rate);
    return { offered: rate, delivered: rate * 0.9, loss: 0.1 };
  };
  const { rate, trials } = await highestRate(unlucky, { trials: 40, limit: 0.001, resolution: 0.01 });
  assert.ok(rate! <= 100.1 && rate! > 98, `${rate} of 100`);
  assert.equal(trials, 1 + 2 * (asked.length - 1), 'each rate is tried twice');
});

test('a flood of which nothing arrives says little about what does', async () => {
  const trial = async (rate: number): Promise<Trial> =>
    rate === 0 ? { offered: 100, delivered: 0, loss: 1 } : { offered: rate, delivered: rate, loss: rate > 50 ? 1 : 0 };
  const { rate } = await highestRate(trial, { trials: 20, limit: 0.001, resolution: 0.01 });
  assert.ok(rate! > 49 && rate! <= 50, `${rate}`);
});

test('a rate that the sender did not reach counts as what it offered', async () => {
  // Paced, the sender manages 50 only; as fast as it can, 100, of which half is lost.
  const trial = async (rate: number): Promise<Trial> =>
    rate === 0 ? { offered: 100, delivered: 80, loss: 0.2 } : { offered: Math.min(rate, 50), delivered: 50, loss: 0 };
  assert.equal((await highestRate(trial, { trials: 8, limit: 0.001 })).rate, 50);
});
