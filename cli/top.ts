import type { StatsRecord, ThreadRecord } from '../control/protocol.ts';
import { CommandError } from '../control/protocol.ts';
import type { TrafficSample } from '../control/traffic/sample.ts';
import { UsageError } from '../control/words.ts';
import { type Client, connectToDaemon } from './client.ts';
import { takeOptions } from './options.ts';
import { print, printJson } from './output.ts';
import { Terminal } from './top/terminal.ts';
import { topText } from './top/text.ts';
import { type Look, SORTS, type Sort, type TopView, topView } from './top/view.ts';

export const HELP = `Usage: uvxlan top [ [ dev ] NAME ] [ interval SECONDS ] [ sort { bytes | packets | name } ]
What passes now: rates of each device, VTEP and flow, drops by reason, and how busy the daemon's threads are. On a terminal drawn
anew every interval, 2 seconds when not given; else, or with -b, printed below each other.
Devices, drops and threads are counted. VTEPs and flows are looked at while this runs, as a capture does: all of the time
while there are few packets, else for as long as 5,000 take, and their parts of the device's rate get a column with the standard
error. What is offloaded to the kernel does not come by: OFFLOAD is its part of the packets. A super-frame is one packet of the
device, and as many as it is cut up into of a flow or VTEP.
  BUSY, NO CPU  part of the time that a thread ran, and that it waited for a CPU while it had something to do
  WAKES/s, TURN how often it woke up, and how long it then ran before it slept again
Keys: b, p, n  sort by bytes, packets, name     + -  a longer or shorter interval     q  quit
Options:
  -b             print instead of drawing       -n COUNT   end after so many intervals
  -j, -json      one JSON object an interval    -p, -pretty    indented
Exit status: 0, 1 after a failure, 2 when the words are wrong.`;

/** Packets that an interval is to look at. */
const BUDGET = 5_000;
/** Milliseconds of the first look, when it is not known yet how many packets there are, and of the shortest. */
const FIRST_LOOK = 100;
const SHORTEST_LOOK = 20;
const LONGEST_LOOK = 10_000;
/** Rows that are asked for. */
const LIMIT = 200;
/** Rows that are printed where there is no terminal to fill. */
const PRINTED = { columns: 100, rows: 60 };

interface Wish {
  dev: string | null;
  seconds: number;
  sort: Sort;
  count: number;
}

export async function run(args: string[]): Promise<number> {
  const isBatch = args.includes('-b');
  const { options, words } = takeOptions(
    args.filter((argument) => argument !== '-b'),
    ['json', 'pretty', 'count'],
  );
  const wish = parseTop(words, options.count);
  const client = await connectToDaemon();
  try {
    if (options.json) await watch(client, wish, (view) => printJson(view(wish.sort), options.pretty));
    else if (isBatch || !process.stdout.isTTY) {
      await watch(client, wish, (view) => print(`${topText(view(wish.sort), wish.sort, PRINTED).join('\n')}\n`));
    } else await draw(client, wish);
  } finally {
    client.close();
  }
  return 0;
}

/** Throws UsageError. */
export function parseTop(words: readonly string[], count: string | undefined): Wish {
  const wish: Wish = { dev: null, seconds: 2, sort: 'bytes', count: Number.POSITIVE_INFINITY };
  if (count !== undefined) wish.count = number('-n', count, /^[1-9]\d*$/, 'a number from 1 on');
  for (let next = 0; next < words.length; ) {
    const word = words[next++];
    if (word === 'interval') {
      wish.seconds = number(word, words[next++], /^\d{1,4}(\.\d+)?$/, 'seconds from 0.1 to 3600');
      if (wish.seconds < 0.1 || wish.seconds > 3600) throw new UsageError('interval wants seconds from 0.1 to 3600');
    } else if (word === 'sort') {
      const sort = SORTS.find((name) => name === words[next]);
      if (!sort) throw new UsageError(`sort wants ${SORTS.join(', ')}, not "${words[next] ?? ''}"`);
      wish.sort = sort;
      next++;
    } else if (wish.dev === null) {
      wish.dev = word === 'dev' ? (words[next++] ?? '') : word;
    } else throw new UsageError(`unknown word "${word}", see uvxlan top --help`);
  }
  return wish;
}

function number(word: string, text: string | undefined, shape: RegExp, what: string): number {
  if (text === undefined || !shape.test(text)) throw new UsageError(`${word} wants ${what}, not "${text ?? ''}"`);
  return Number(text);
}

/** What was seen in an interval, in an order. */
type Seen = (sort: Sort) => TopView;

/** Looks again and again, until `wish.count` times, or `signal`. The wish may change meanwhile. */
async function watch(client: Client, wish: Wish, show: (seen: Seen) => void, signal?: AbortSignal): Promise<void> {
  let before = await look(client, wish.dev);
  let milliseconds = FIRST_LOOK;
  for (let i = 0; i < wish.count && !signal?.aborted; i++) {
    const interval = wish.seconds * 1000;
    const [sample] = await Promise.all([
      sampleOf(client, wish.dev, Math.round(Math.min(milliseconds, interval, LONGEST_LOOK))),
      pause(interval, signal),
    ]);
    if (signal?.aborted) return;
    const [from, to] = [before, await look(client, wish.dev)];
    before = to;
    const seen = (sort: Sort): TopView => topView(from, to, sample, sort);
    const packets = seen('name').devices.reduce((sum, { tx, rx }) => sum + tx.packets + rx.packets, 0);
    milliseconds = Math.max(SHORTEST_LOOK, (1000 * BUDGET) / Math.max(packets, 1));
    show(seen);
  }
}

async function look(client: Client, name: string | null): Promise<Look> {
  const [stats, threads] = [
    await client.ask<StatsRecord[]>('stats', { name }),
    await client.ask<ThreadRecord[]>('threads'),
  ];
  return { time: Date.now(), stats, threads };
}

/** Why there is none, where the daemon refuses: it has as many listeners as it can have, say. */
async function sampleOf(client: Client, dev: string | null, milliseconds: number): Promise<TrafficSample | string> {
  try {
    return await client.ask<TrafficSample>('traffic', { dev, milliseconds, limit: LIMIT });
  } catch (error) {
    if (error instanceof CommandError && error.errno === 'EBUSY') return error.message;
    throw error;
  }
}

function pause(milliseconds: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener('abort', () => {
      clearTimeout(timer);
      resolve();
    });
  });
}

/** On the whole terminal, until q, Ctrl-C or a signal. */
async function draw(client: Client, wish: Wish): Promise<void> {
  const end = new AbortController();
  let seen: Seen | undefined;
  const redraw = (): void => {
    const lines = seen
      ? topText(seen(wish.sort), wish.sort, terminal.size)
      : [`uvxlan top: looking for ${wish.seconds} s ...`];
    terminal.draw(lines);
  };
  const keys: Record<string, () => void> = {
    q: () => end.abort(),
    b: () => (wish.sort = 'bytes'),
    p: () => (wish.sort = 'packets'),
    n: () => (wish.sort = 'name'),
    '+': () => (wish.seconds = Math.min(3600, wish.seconds * 2)),
    '-': () => (wish.seconds = Math.max(0.25, wish.seconds / 2)),
  };
  const terminal: Terminal = new Terminal(
    (key) => {
      if (!Object.hasOwn(keys, key)) return;
      keys[key]();
      redraw();
    },
    () => setImmediate(redraw),
  );
  const shown = (next: Seen): void => {
    seen = next;
    redraw();
  };
  try {
    // The daemon may be at a sample that nobody waits for any more.
    await Promise.race([
      watch(client, wish, shown, end.signal),
      new Promise<void>((resolve) => end.signal.addEventListener('abort', () => resolve())),
    ]);
  } finally {
    terminal.close();
  }
}
