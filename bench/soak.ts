/**
 * A long run with random changes of the host under one daemon, while TCP flows over it: fails when the connection ends, when a change
 * is not followed, or when memory, descriptors, filters, links or neighbours grow.
 *
 *     npm run build && sudo node dist/bench/soak.js [MINUTES [SEED]]     default: 30 minutes
 */
import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import { ping } from '../cli/lab/measure.ts';
import { type Host, Network, type Owner } from '../cli/lab/network.ts';
import { eventually, runSync } from '../cli/lab/process.ts';
import { introduce, kernelVtep, tell, uvxlan, uvxlanVtep } from '../cli/lab/vtep.ts';
import { Stream } from '../test/net/live.ts';
import { traces } from '../test/net/traces.ts';
import { residentBytes } from './machine.ts';

const WORDS = 'id 1 dev eth0 dstport 8472 nolearning';
const PEER = '10.244.2.1';
/** So many changes come after each was made once. */
const AT_LEAST = 4;
/** Bytes: the heap of V8 breathes. */
const RSS_LIMIT = 48 * 1024 * 1024;

export interface SoakOptions {
  /** Ends with the first change after so many seconds, and at the earliest when each was made once and four more. */
  readonly seconds: number;
  readonly seed: number;
  readonly log: (line: string) => void;
}

/** What must not grow. */
interface Footprint {
  readonly rss: number;
  readonly descriptors: number;
  readonly traces: object;
  readonly namespaces: number;
}

/** The changes of a host, by name; each is undone by itself, so that they can come in any order. */
function changes(left: Host, near: Host): Record<string, () => unknown> {
  const uplinkTap = () =>
    left.ipJson<{ ifname: string }[]>('link show').find(({ ifname }) => ifname.startsWith('uvxup'))?.ifname;
  let number = 0;
  return {
    'NIC down and up': () => {
      left.ip('link set eth0 down');
      left.ip('link set eth0 up');
    },
    'NIC renamed': async () => {
      left.ip('link set eth0 name nic7');
      await sleep(100);
      left.ip('link set nic7 name eth0');
    },
    'NIC with another MAC': () => left.ip(`link set eth0 address 02:00:00:00:ee:${hex(++number)}`),
    'NIC with another MTU': async () => {
      left.ip('link set eth0 mtu 1400');
      await sleep(100);
      left.ip('link set eth0 mtu 1500');
    },
    'NIC made anew': () => {
      left.ip('link del eth0');
      runSync(`ip link add eth0 netns ${left.namespace} type veth peer name port0 netns ${near.namespace}`);
      near.ip('link set port0 master br0 up');
      left.ip('link set eth0 up');
      left.ip('address add 192.0.2.1/24 dev eth0');
    },
    'address gone and back': async () => {
      left.ip('address del 192.0.2.1/24 dev eth0');
      await sleep(50);
      left.ip('address add 192.0.2.1/24 dev eth0');
    },
    'TAP renamed': async () => {
      left.ip('link set flannel.1 name vx0');
      await sleep(100);
      left.ip('link set vx0 name flannel.1');
    },
    "uplink's TAP deleted": () => {
      const tap = uplinkTap();
      if (tap) left.ip(`link del ${tap}`);
    },
    'uplink udp and back': async () => {
      await tell(left, 'link set flannel.1 type vxlan uplink udp');
      await tell(left, 'link set flannel.1 type vxlan uplink redirect');
    },
    'device added and removed': async () => {
      await tell(left, 'link add vx2 type vxlan id 2 local 192.0.2.1 dev eth0 dstport 8472 uplink udp');
      await tell(left, 'link del vx2');
    },
    'device added and deleted by hand': async () => {
      await tell(left, 'link add vx3 type vxlan id 3 local 192.0.2.1 dev eth0 dstport 4789 uplink redirect');
      left.ip('link del vx3');
      const isGone = async () => !(await uvxlan(left, 'link show')).stdout.includes('vx3');
      await eventually('vx3 gone', isGone);
    },
    'FDB entries come and go': async () => {
      const entries = Array.from(
        { length: 200 },
        (_, i) => `02:00:00:00:77:${hex(i)} dev flannel.1 dst 192.0.2.${2 + (i % 200)}`,
      );
      for (const verb of ['append', 'del']) {
        await uvxlan(left, 'fdb -batch -', { input: entries.map((entry) => `fdb ${verb} ${entry}\n`).join('') });
      }
    },
  };
}

export async function soak(owner: Owner, { seconds, seed, log }: SoakOptions): Promise<void> {
  const network = Network.build(owner, {
    hosts: { left: {}, right: {} },
    switches: { near: ['left eth0 192.0.2.1/24', 'right eth0 192.0.2.2/24'] },
  });
  const [left, right, near] = ['left', 'right', 'near'].map((name) => network.host(name)) as [Host, Host, Host];
  const ours = await uvxlanVtep(left, {
    ...{ local: '192.0.2.1', addresses: '10.244.1.1/16', mac: '02:00:00:00:00:01' },
    words: `${WORDS} uplink redirect workers 2`,
  });
  const theirs = kernelVtep(right, {
    ...{ local: '192.0.2.2', addresses: `${PEER}/16`, mac: '02:00:00:00:00:02' },
    words: WORDS,
  });
  await introduce(ours, theirs);
  await answers(left);
  const streams = await Promise.all([Stream.start(left, right, PEER), Stream.start(right, left, '10.244.1.1')]);

  const all = Object.entries(changes(left, near));
  const random = generator(seed);
  const end = Date.now() + seconds * 1000;
  let base: Footprint | undefined;
  for (let made = 0; made < all.length + AT_LEAST || Date.now() < end; made++) {
    // Each once, then at random.
    const [name, change] = all[made < all.length ? made : Math.floor(random() * all.length)]!;
    const start = Date.now();
    await change();
    await answers(left);
    const milliseconds = Date.now() - start;
    for (const stream of streams) await stream.goesOn(name);
    // By now the daemon has all that it needs: what comes later is growth.
    if (made === all.length - 1) base = footprint(left, ours.daemon.pid!);
    const rss = Math.round(residentBytes(ours.daemon.pid!) / 2 ** 20);
    log(`${made + 1}: ${name}: answers after ${milliseconds} ms, RSS ${rss} MB`);
  }
  for (const stream of streams) await stream.finish();
  await settled(left, ours.daemon.pid!, base!);
  const { output, exit } = ours.daemon;
  assert.ok(exit === undefined && !/worker \d+ failed/.test(output), output);
}

/** Fails unless all is as it was. What comes down a little later is waited for: a connection's end, neighbours that nobody needs. */
async function settled(host: Host, pid: number, base: Footprint): Promise<void> {
  const counted = (all: Footprint) => ({ ...all, rss: 0 });
  let now = footprint(host, pid);
  for (let tries = 0; tries < 200 && !isDeepStrictEqual(counted(now), counted(base)); tries++) {
    await sleep(100);
    now = footprint(host, pid);
  }
  assert.deepEqual(counted(now), counted(base));
  assert.ok(now.rss < base.rss + RSS_LIMIT, `${base.rss} bytes have become ${now.rss}`);
}

function footprint(host: Host, pid: number): Footprint {
  const { links, qdiscs, filters, neighbours, sockets, files } = traces(host);
  // The uplink's TAP has another number each time it is opened, and neighbours' times run.
  const seen = { links: links.length, qdiscs: qdiscs.length, filters: filters.length, sockets: sockets.length, files };
  return {
    rss: residentBytes(pid),
    descriptors: readdirSync(`/proc/${pid}/fd`).length,
    traces: { ...seen, neighbours: neighbours.length },
    namespaces: readdirSync('/run/netns').filter((name) => name.startsWith(`uvx-${process.pid}-`)).length,
  };
}

async function answers(host: Host): Promise<void> {
  const isAnswered = async () => (await ping(host, PEER, { count: 2, interval: 0.02 })).received === 2;
  await eventually('pings are answered', isAnswered);
}

function hex(number: number): string {
  return (number & 0xff).toString(16).padStart(2, '0');
}

/** Numbers from 0 to below 1, the same for the same seed (mulberry32). */
function generator(seed: number): () => number {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

if (process.argv[1] === import.meta.filename) {
  const [minutes = 30, seed = 1] = process.argv.slice(2).map(Number);
  const ends: (() => void)[] = [];
  try {
    await soak({ after: (end) => ends.push(end) }, { seconds: minutes * 60, seed, log: console.log });
    console.log('nothing has grown');
  } finally {
    for (const end of ends) end();
  }
  process.exit();
}
