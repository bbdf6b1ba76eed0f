/** What the lab shows: the drawing, the counters, the packet. */
import type { LinkCounters, StatsRecord } from '../../control/protocol.ts';
import { DROPS } from '../../dataplane/drops.ts';
import type { PingResult } from './measure.ts';
import { DEVICE, LEFT, type Node, RIGHT, runsUvxlan } from './nodes.ts';
import { uvxlan } from './vtep.ts';

export const DRAWING = `\
  left-pod ${LEFT.pod}                         right-pod ${RIGHT.pod}
     |                                            |
  cni0 10.244.1.1/24                           cni0 10.244.2.1/24
     |                                            |
  ${DEVICE} ${LEFT.tunnel} ~~~~~ VXLAN, VNI 1 ~~~~ ${DEVICE} ${RIGHT.tunnel}
     |                UDP port 8472               |
  eth0 ${LEFT.local} ------------ veth ----------- eth0 ${RIGHT.local}`;

export function pingText({ sent, received, loss, rtt }: PingResult): string {
  const times = rtt ? `, rtt min/mean/max ${rtt.min}/${rtt.mean}/${rtt.max} ms` : '';
  return `${sent} sent, ${received} received, ${Math.round(loss * 100)} % loss${times}`;
}

/** A node's counters, in the order of a packet's way. */
interface Seen {
  title: string;
  cells: string[];
  notes: string[];
}

const ROWS = ['frames from the node', 'packets to the network', 'packets from the network', 'frames to the node'];

/** The table of what both nodes have carried, a column a node, and a sentence on each drop. */
export async function seenText(nodes: readonly Node[]): Promise<string> {
  const columns = await Promise.all(nodes.map((node) => (runsUvxlan(node) ? seenByUvxlan(node) : seenByKernel(node))));
  const rows = ['', ...ROWS, 'bytes sent', 'bytes received', 'dropped'].map((name, row) => [
    name,
    ...columns.map(({ title, cells }) => (row === 0 ? title : cells[row - 1])),
  ]);
  const widths = rows[0].map((_, column) => Math.max(...rows.map((row) => row[column].length)));
  const lines = rows.map(([name, ...cells]) => {
    const padded = cells.map((cell, column) => cell.padStart(widths[column + 1]));
    return `  ${[name.padEnd(widths[0]), ...padded].join('   ')}`;
  });
  return [...lines, ...columns.flatMap(({ notes }) => notes.map((note) => `  ${note}`))].join('\n');
}

async function seenByUvxlan({ plan, host }: Node): Promise<Seen> {
  const { stdout } = await uvxlan(host, `-j stats ${DEVICE}`);
  const records = JSON.parse(stdout) as StatsRecord[];
  const { tx, rx } = records.find(({ ifname }) => ifname === DEVICE)!;
  const drops = records
    .flatMap((record) => [...Object.entries(record.tx.drops), ...Object.entries(record.rx.drops)])
    .filter(([, count]) => count > 0);
  const dropped = drops.reduce((sum, [, count]) => sum + count, 0);
  const meaning = (name: string) => DROPS.find((drop) => drop.name === name)?.meaning ?? '';
  return {
    title: `${plan.name} (uvxlan)`,
    cells: [tx.in, tx.out, rx.in, rx.out, tx.bytes, rx.bytes, dropped].map(grouped),
    notes: drops.map(([name, count]) => `${plan.name} dropped ${count}, ${name}: ${meaning(name)}`),
  };
}

/** The kernel counts a frame and its packet once. */
function seenByKernel({ plan, host }: Node): Seen {
  type Row = { stats64: { rx: LinkCounters; tx: LinkCounters } };
  const [{ stats64 }] = host.ipJson<Row[]>(`-s link show ${DEVICE}`);
  const { tx, rx } = stats64;
  const dropped = tx.dropped + tx.errors + rx.dropped + rx.errors;
  return {
    title: `${plan.name} (kernel)`,
    cells: [tx.packets, tx.packets, rx.packets, rx.packets, tx.bytes, rx.bytes, dropped].map(grouped),
    notes: [],
  };
}

function grouped(count: number): string {
  return count.toLocaleString('en');
}
