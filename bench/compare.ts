/**
 * uvxlan beside the kernel's own VXLAN: two hosts on one machine, a veth between them, the same measurements over each kind of overlay.
 *
 *     npm run bench -- [--rounds 5] [--seconds 2] [--peers kernel,redirect,...]
 *
 * Rounds are interleaved (A B C A B C), so that a machine whose speed drifts treats all alike. Printed are medians and spread, and the median
 * of the ratios to the kernel of the same round. Only the ratios say something about another machine.
 */
import { readFileSync } from 'node:fs';
import os from 'node:os';
import { parseArgs } from 'node:util';
import { iperf3, ping } from '../cli/lab/measure.ts';
import { Network } from '../cli/lab/network.ts';
import { introduce, kernelVtep, uvxlanVtep, type Vtep } from '../cli/lab/vtep.ts';

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '5' },
    seconds: { type: 'string', default: '2' },
    peers: { type: 'string', default: 'kernel,redirect,redirect-kernel,kernel-redirect,udp' },
  },
});
const rounds = Number(values.rounds);
const seconds = Number(values.seconds);

type Kind = 'kernel' | 'redirect' | 'udp' | 'raw';
/** LEFT-RIGHT, or one kind for both hosts. The left one sends. */
const peers = values.peers.split(',').map((name) => {
  const [left, right = left] = name.split('-') as [Kind, Kind?];
  return { name: right === left ? left : `${left} -> ${right}`, left, right };
});

const MEASURES = [
  'TCP 1 stream, Gbit/s',
  'TCP 1 stream, CPU s/GB',
  'TCP 4 streams, Gbit/s',
  'UDP 64 B at 100 kpps, % lost',
  'UDP 64 B overload, kpps',
  'UDP 1400 B overload, Gbit/s',
  'flood ping mean, us',
] as const;
type Row = Record<(typeof MEASURES)[number], number>;

const results = new Map<string, Row[]>(peers.map(({ name }) => [name, []]));
for (let round = 1; round <= rounds; round++) {
  for (const { name, left, right } of peers) {
    process.stderr.write(`round ${round} of ${rounds}: ${name}\n`);
    results.get(name)!.push(await measure(left, right));
  }
}
report();

async function measure(leftKind: Kind, rightKind: Kind): Promise<Row> {
  const ends: (() => void)[] = [];
  try {
    const network = Network.build(
      { after: (remove) => ends.push(remove) },
      { hosts: { left: {}, right: {} }, links: [['left eth0 192.0.2.1/24', 'right eth0 192.0.2.2/24']] },
    );
    const left = await vtep(network, 'left', 1, leftKind);
    const right = await vtep(network, 'right', 2, rightKind);
    await introduce(left, right);
    const [address] = right.addresses;
    const run = (options: Parameters<typeof iperf3>[3]) =>
      iperf3(left.host, right.host, address, { seconds, ...options });
    await iperf3(left.host, right.host, address, { seconds: 1 }); // warm-up: V8 compiles what is hot
    const busy = busySeconds();
    const tcp = await run({});
    const cpu = busySeconds() - busy;
    const tcp4 = await run({ streams: 4 });
    const paced = await run({ udp: true, length: 64, bitrate: 100_000 * 64 * 8 });
    const small = await run({ udp: true, length: 64, bitrate: 0 });
    const large = await run({ udp: true, length: 1400, bitrate: 0 });
    const flood = await ping(left.host, address, { count: 3000, flood: true });
    return {
      'TCP 1 stream, Gbit/s': tcp.bitsPerSecond / 1e9,
      'TCP 1 stream, CPU s/GB': cpu / (tcp.bytes / 1e9),
      'TCP 4 streams, Gbit/s': tcp4.bitsPerSecond / 1e9,
      'UDP 64 B at 100 kpps, % lost': paced.loss * 100,
      'UDP 64 B overload, kpps': small.bitsPerSecond / 8 / 64 / 1e3,
      'UDP 1400 B overload, Gbit/s': large.bitsPerSecond / 1e9,
      'flood ping mean, us': (flood.rtt?.mean ?? Number.NaN) * 1000,
    };
  } finally {
    for (const end of ends) end();
  }
}

function vtep(network: Network, host: string, i: number, kind: Kind): Promise<Vtep> | Vtep {
  const options = { local: `192.0.2.${i}`, addresses: `198.51.100.${i}/24`, mac: `02:00:00:00:00:0${i}` };
  if (kind === 'kernel') return kernelVtep(network.host(host), options);
  const words = `id 1 dev eth0 dstport 8472 nolearning uplink ${kind}`;
  return uvxlanVtep(network.host(host), { ...options, words });
}

/** CPU seconds that the whole machine has worked, the sending and receiving programs included. */
function busySeconds(): number {
  const [user, nice, system, , , irq, softirq] = readFileSync('/proc/stat', 'latin1')
    .split('\n')[0]
    .split(/\s+/)
    .slice(1)
    .map(Number);
  return (user + nice + system + irq + softirq) / 100;
}

function report(): void {
  const { model } = os.cpus()[0];
  console.log(`Node ${process.version}, Linux ${os.release()}, ${os.availableParallelism()} x ${model}`);
  console.log(`${rounds} rounds of ${seconds} s, interleaved; median (min-max), ratio to kernel in the same round\n`);
  console.log(`| | ${peers.map(({ name }) => name).join(' | ')} |`);
  console.log(`|---|${peers.map(() => '---|').join('')}`);
  for (const measure of MEASURES) {
    const cells = peers.map(({ name }) => {
      const own = results.get(name)!.map((row) => row[measure]);
      const base = results.get('kernel')?.map((row) => row[measure]);
      const text = `${figure(median(own))} (${figure(Math.min(...own))}-${figure(Math.max(...own))})`;
      if (!base || name === 'kernel' || measure.includes('lost')) return text;
      return `${text}, ${figure(median(own.map((value, i) => value / base[i])))} x`;
    });
    console.log(`| ${measure} | ${cells.join(' | ')} |`);
  }
}

function median(numbers: readonly number[]): number {
  const sorted = [...numbers].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

function figure(value: number): string {
  return value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2);
}
