/**
 * Readers in threads of their own, for tests in which the main thread writes what they read. Each runs one of ROUNDS until it is stopped,
 * and then reports its counts.
 */
import { once } from 'node:events';
import type { TestContext } from 'node:test';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import {
  loadWord,
  OUTER_LENGTH,
  RECORD,
  RESOLVED,
  STATE,
  TEMPLATE,
  TEMPLATE_WORDS,
  VIA_HOST,
} from '../../fdb/nexthops.ts';
import { PeerReader } from '../../fdb/peers.ts';
import { FdbReader } from '../../fdb/table.ts';

/** Words of the array between the threads. */
const STOP = 0;
const ROUND = 1;

export interface RunningReader<Counts> {
  readonly started: Promise<unknown>;
  /** How many rounds it has finished. */
  rounds(): number;
  stop(): Promise<Counts>;
}

interface TableData {
  buffer: SharedArrayBuffer;
  ordered: boolean;
  device: number;
  keys: number;
  residents: number;
}

interface NextHopData {
  buffer: SharedArrayBuffer;
  index: number;
}

interface ListData {
  buffer: SharedArrayBuffer;
  name: Int32Array;
}

interface PeerData {
  buffer: SharedArrayBuffer;
  residents: number;
}

type Data = TableData & NextHopData & ListData & PeerData;

interface Rounds {
  counts: Record<string, number>;
  round(): void;
}

export function startReader<Counts>(
  t: TestContext,
  kind: keyof typeof ROUNDS,
  data: Partial<Data>,
): RunningReader<Counts> {
  const control = new Int32Array(new SharedArrayBuffer(8));
  const worker = new Worker(new URL(import.meta.url), { workerData: { ...data, kind, control } });
  t.after(() => worker.terminate());
  return {
    started: once(worker, 'message'),
    rounds: () => Atomics.load(control, ROUND),
    async stop() {
      const counts = once(worker, 'message');
      Atomics.store(control, STOP, 1);
      return (await counts)[0];
    },
  };
}

/** A round returns quickly and adds to its counts. */
const ROUNDS = {
  /** Looks up keys; a destination tells its key. Residents are never deleted. */
  table({ buffer, ordered, device, keys, residents }: TableData): Rounds {
    const reader = new FdbReader(buffer, ordered);
    const counts = { lookups: 0, hits: 0, wrong: 0, missed: 0 };
    const round = () => {
      for (let key = 0; key < keys; key++) {
        const destination = reader.lookup(device, key, key);
        counts.lookups++;
        if (destination !== 0) counts.hits++;
        if (destination !== 0 && destination >> 4 !== key + 1) counts.wrong++;
        if (destination === 0 && key < residents) counts.missed++;
      }
    };
    return { counts, round };
  },

  /** Copies templates whose words are all as their length, and whose state is VIA_HOST when this is a multiple of 3. */
  nextHops({ buffer, index }: NextHopData): Rounds {
    const words = new Int32Array(buffer);
    const record = index * RECORD;
    const copy = new Int32Array(TEMPLATE_WORDS);
    const counts = { copies: 0, viaHost: 0, torn: 0 };
    const round = () => {
      for (let i = 0; i < 100; i++) {
        const sequence = Atomics.load(words, record);
        const state = loadWord(words, record + STATE);
        const length = loadWord(words, record + OUTER_LENGTH);
        for (let w = 0; w < TEMPLATE_WORDS; w++) copy[w] = loadWord(words, record + TEMPLATE + w);
        if ((sequence & 1) !== 0 || Atomics.load(words, record) !== sequence) continue;
        if (state === RESOLVED) counts.copies++;
        else counts.viaHost++;
        const whole = state === (length % 3 === 0 ? VIA_HOST : RESOLVED);
        if (!whole || copy.some((word) => word !== length)) counts.torn++;
      }
    };
    return { counts, round };
  },

  /** Reads the list that a shared word names; its members are consecutive numbers. */
  lists({ buffer, name }: ListData): Rounds {
    const words = new Int32Array(buffer);
    const counts = { lists: 0, members: 0, mixed: 0 };
    const round = () => {
      const list = Atomics.load(name, 0);
      const count = Atomics.load(words, list);
      const first = words[list + 1];
      counts.lists++;
      for (let i = 0; i < count; i++) {
        counts.members++;
        if (words[list + 1 + i] !== first + i) counts.mixed++;
      }
    };
    return { counts, round };
  },

  /** Looks VTEPs up: residents are never removed, those from 1000 on come and go, those from 5000 on never come. */
  peers({ buffer, residents }: PeerData): Rounds {
    const reader = new PeerReader(buffer);
    const counts = { lookups: 0, missed: 0, strangers: 0, guests: 0 };
    const round = () => {
      for (let i = 0; i < residents; i++) {
        counts.lookups++;
        if (!reader.has(1, i, 0, 0, 0)) counts.missed++;
        if (reader.has(1, 5000 + i, 0, 0, 0)) counts.strangers++;
        if (reader.has(1, 1000 + i, 0, 0, 0)) counts.guests++;
      }
    };
    return { counts, round };
  },
};

if (!isMainThread && workerData?.kind in ROUNDS) {
  const { kind, control, ...data } = workerData as Data & { kind: keyof typeof ROUNDS; control: Int32Array };
  const { counts, round }: Rounds = ROUNDS[kind](data);
  parentPort!.postMessage('started');
  while (Atomics.load(control, STOP) === 0) {
    round();
    Atomics.add(control, ROUND, 1);
  }
  parentPort!.postMessage(counts);
}
