import assert from 'node:assert/strict';
import test from 'node:test';
import { compare } from '../../bench/compare.ts';
import { parseMeasures } from '../../bench/measures/measures.ts';
import { parsePeers } from '../../bench/peers/peers.ts';
import { sentence } from '../../bench/rounds.ts';

const OPTIONS = {
  ...{ peers: parsePeers('kernel'), measures: parseMeasures('ping'), rounds: 1, limit: 60 },
  ...{ pace: { seconds: 1, trialSeconds: 0.5, trials: 1 }, congestion: undefined, output: undefined },
};

test('a reason is one line, with what was run and, at its end, the cause', () => {
  assert.equal(sentence(new Error('no such\n  device\n')), 'no such device');
  const long = sentence(new Error(`iperf3 -J ${'word '.repeat(200)}ENODEV`));
  assert.ok(long.length < 450);
  assert.match(long, /^iperf3 -J .* \.\.\. .*ENODEV$/);
});

test('a comparison that has nobody to compare is no success', async () => {
  await assert.rejects(
    compare({ ...OPTIONS, peers: parsePeers('redirect@/nowhere') }, 'npm run bench'),
    /nothing can run here: redirect@\/nowhere: \/nowhere\/dist\/cli\/main\.js is not there/,
  );
});

test('a congestion control that the kernel does not have is refused before anything runs', async () => {
  await assert.rejects(
    compare({ ...OPTIONS, congestion: 'carrier-pigeon' }, 'npm run bench'),
    /no "carrier-pigeon"; it has .*\breno\b/,
  );
});
