// The benchmark on real devices, as short as it can be: what it measures is there, and what fails is said. And a transfer with loss.

import assert from 'node:assert/strict';
import test from 'node:test';
import { parseMeasures } from '../../bench/measures/measures.ts';
import { roundTrip } from '../../bench/measures/round-trip.ts';
import { build, parsePeers } from '../../bench/peers/peers.ts';
import { runRounds } from '../../bench/rounds.ts';
import { congestionControls, setCongestion, socketsText } from '../../bench/sockets.ts';
import { lossyPair } from '../../bench/transfer.ts';
import { iperf3 } from '../../cli/lab/measure.ts';
import { bulkTransfer } from './bulk.ts';
import { lacking } from './requirements.ts';

const PACE = { seconds: 1, trialSeconds: 0.2, trials: 1 };

function rounds(peers: string, measures: string) {
  return runRounds({
    ...{ peers: parsePeers(peers), measures: parseMeasures(measures), rounds: 1, pace: PACE, limit: 60 },
    progress: () => {},
  });
}

test('a round of two peers has its figures', {
  skip: lacking('tun', 'kernel-vxlan', 'iperf3'),
  timeout: 180_000,
}, async () => {
  const { runs } = await rounds('kernel,redirect:kernel', 'ping,processes');
  const [kernel, mixed] = runs;
  assert.deepEqual(
    runs.map(({ peer, failures }) => [peer, failures]),
    [
      ['kernel', []],
      ['redirect:kernel', []],
    ],
  );
  assert.ok(kernel!.values.ping! > 0 && mixed!.values.ping! > 0);
  assert.equal(kernel!.values.memory, undefined); // there is no process
  assert.ok(mixed!.values.memory! > 10);
});

test('a peer that does not come up has reasons in the place of figures', {
  skip: lacking('tun'),
  timeout: 180_000,
}, async () => {
  const [peer] = parsePeers('redirect');
  const open = () => Promise.reject(new Error('no such device'));
  const broken = { ...peer!, left: { ...peer!.left, open } };
  const options = { rounds: 1, pace: PACE, limit: 60, progress: () => {} };
  const { runs } = await runRounds({ peers: [broken], measures: parseMeasures('tcp1,ping'), ...options });
  assert.deepEqual(runs[0]!.values, {});
  assert.deepEqual(runs[0]!.failures, [{ keys: ['ping', 'tcp1', 'tcp1.back', 'tcp1.cpu'], why: 'no such device' }]);
});

test('TCP of the runs takes the congestion control that is asked for', {
  skip: lacking('iperf3') || (congestionControls().length < 2 && 'needs two congestion controls'),
  timeout: 60_000,
}, async () => {
  const [peer] = parsePeers('veth');
  const { left, right, remove } = await build(peer!, 1500);
  try {
    const used = async () => {
      const { report } = await iperf3(left.host, right.host, right.addresses[0]!, { writes: 1 });
      const { sender_tcp_congestion: sender, receiver_tcp_congestion: receiver } = report.end as Record<string, string>;
      return { sender: sender!, receiver: receiver! };
    };
    const { sender: usual } = await used();
    assert.match(socketsText(), new RegExp(`^TCP ${usual}, buffers up to [1-9]`));
    const other = congestionControls().find((name) => name !== usual)!;
    setCongestion({ left, right, remove }, other);
    assert.deepEqual(await used(), { sender: other, receiver: other });
  } finally {
    remove();
  }
});

test('round trips go on after a loss, and count it', {
  skip: lacking('iptables'),
  timeout: 60_000,
}, async () => {
  const [peer] = parsePeers('veth');
  const pair = await build(peer!, 1500);
  try {
    pair.right.host.exec('iptables -A INPUT -p udp -m statistic --mode nth --every 50 --packet 0 -j DROP');
    const { values, failures } = await roundTrip.run(pair, PACE);
    assert.equal(failures, undefined);
    assert.ok(values['rtt.answered']! > 98, `${values['rtt.answered']} answered`); // two were lost
    assert.ok(Math.abs(values['rtt.lost']! - 2) < 1, `${values['rtt.lost']} % lost`);
    assert.ok(values['rtt.p50']! > 0);
  } finally {
    pair.remove();
  }
});

for (const uplink of ['redirect', 'udp']) {
  test(`${uplink}: every byte arrives although packets are lost`, {
    skip: lacking('tun', 'kernel-vxlan', 'iptables'),
    timeout: 180_000,
  }, async (t) => {
    const { left, right } = await lossyPair(t, uplink, 0.01);
    await bulkTransfer(left.host, right.host, right.addresses[0]!, 8e6);
    await bulkTransfer(right.host, left.host, left.addresses[0]!, 8e6);
  });
}
