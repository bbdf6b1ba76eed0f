/**
 * What it costs that somebody looks, in a real run: two daemons on a veth, and the left one, which sends, is sampled as for a page or captured from,
 * in turns with neither. Prints medians, and their ratios to nobody looking in the same round.
 *
 *     npm run build && sudo node dist/bench/watching.js [ROUNDS [CHECKOUT]]      CHECKOUT: a directory whose dist/ is run instead
 */
import { readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { connectToDaemon } from '../cli/client.ts';
import { iperf3 } from '../cli/lab/measure.ts';
import { MAIN } from '../cli/lab/vtep.ts';
import { cpuSecondsOf } from './machine.ts';
import { build, type Pair, parsePeers } from './peers/peers.ts';
import { summarize } from './statistics.ts';

const SECONDS = 3;
/** Datagrams a second that overload nobody, and their size. */
const RATE = 30_000;
const SIZE = 64;

type Stop = () => Promise<void>;
interface Way {
  /** Begins to look at the left end. */
  start(pair: Pair, checkout: string): Promise<Stop>;
}

const capture = (snapLength: number): Way => ({
  async start({ left }, main) {
    const file = join(left.host.directory, 'bench.pcapng');
    const program = left.host.spawn([process.execPath, main, 'capture', '-w', file, 'snaplen', `${snapLength}`]);
    await program.waitFor(/Ctrl-C ends it/);
    return async () => {
      await program.stop('SIGINT');
      const told = /(\d+) packets? captured, (\d+) lost/.exec(program.output);
      note(`    captured ${told?.[1]}, lost ${told?.[2]}`);
      rmSync(file, { force: true });
    };
  },
});

const WAYS: Readonly<Record<string, Way>> = {
  off: { start: async () => async () => {} },
  'samples, as for a page': {
    async start({ left }) {
      const inode = statSync(`/run/netns/${left.host.namespace}`).ino;
      const client = await connectToDaemon(`/run/uvxlan/${inode}.sock`);
      const timer = setInterval(() => void client.ask('samples').catch(() => {}), 500);
      return async () => {
        clearInterval(timer);
        client.close();
      };
    },
  },
  'all, 128 bytes each': capture(128),
};

/** CPU seconds of a process's main thread, and of its other threads. */
function threads(pid: number): { main: number; others: number } {
  let [main, others] = [0, 0];
  for (const task of readdirSync(`/proc/${pid}/task`)) {
    const seconds = Number(readFileSync(`/proc/${pid}/task/${task}/schedstat`, 'latin1').split(' ')[0]) / 1e9;
    if (Number(task) === pid) main += seconds;
    else others += seconds;
  }
  return { main, others };
}

async function measure({ left, right }: Pair): Promise<Record<string, number>> {
  const [address] = right.addresses;
  const pid = left.daemons[0]!.pid!;
  const udp = { udp: true, length: SIZE, seconds: SECONDS };
  const before = threads(pid);
  const { result: steady, seconds: cpu } = await cpuSecondsOf(() =>
    iperf3(left.host, right.host, address!, { ...udp, bitrate: RATE * SIZE * 8 }),
  );
  const after = threads(pid);
  const microseconds = (seconds: number): number => (seconds / steady.packets) * 1e6;
  const flood = await iperf3(left.host, right.host, address!, { ...udp, bitrate: 0 });
  const tcp = await iperf3(left.host, right.host, address!, { seconds: SECONDS });
  return {
    [`UDP ${SIZE} B, ${RATE / 1e3} kpps: workers, us a packet`]: microseconds(after.others - before.others),
    '    main thread, us a packet': microseconds(after.main - before.main),
    '    whole machine, us a packet': microseconds(cpu),
    '    lost, %': steady.loss * 100,
    [`UDP ${SIZE} B, delivered of a flood, kpps`]: (flood.packets - flood.lost) / flood.seconds / 1e3,
    'TCP, Gbit/s': tcp.bitsPerSecond / 1e9,
  };
}

function note(text: string): void {
  console.error(text);
}

const rounds = Number(process.argv[2] ?? 3);
const checkout = process.argv[3];
const main = checkout === undefined ? MAIN : resolve(checkout, 'dist/cli/main.js');
const [peer] = parsePeers(checkout === undefined ? 'redirect' : `redirect@${checkout}`);
const pair = await build(peer!, 1500);
try {
  await iperf3(pair.left.host, pair.right.host, pair.right.addresses[0]!, { seconds: 2, extra: ['--bidir'] });
  const results = new Map<string, Record<string, number>[]>(Object.keys(WAYS).map((name) => [name, []]));
  for (let round = 0; round < rounds; round++) {
    for (const [name, way] of Object.entries(WAYS)) {
      note(`round ${round + 1} of ${rounds}: ${name}`);
      const stop = await way.start(pair, main);
      try {
        results.get(name)!.push(await measure(pair));
      } finally {
        await stop();
      }
    }
  }
  const median = (values: readonly number[]): number => summarize(values)!.median;
  const off = results.get('off')!;
  for (const key of Object.keys(off[0]!)) {
    console.log(key);
    for (const [name, those] of results) {
      const ratio = median(those.map((each, i) => each[key]! / off[i]![key]!));
      console.log(
        `    ${name.padEnd(26)} ${median(those.map((each) => each[key]!))
          .toFixed(2)
          .padStart(9)}   ${ratio.toFixed(2)} x`,
      );
    }
  }
} finally {
  pair.remove();
}
