/** The curves: what grows with the size of the network. In memory, without the system calls that move packets: those cost the same at every size. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { environment, environmentText } from './environment.ts';
import { lineChart } from './report/chart.ts';
import { list, page, table } from './report/page.ts';
import { figure } from './report/text.ts';
import { clusterText } from './scale/cluster.ts';
import { fdb, flood, PAGE_FAULTS, type Point, SIZES, vnis, vteps } from './scale/curves.ts';

const CLUSTER = 10_000;

export interface Curve {
  readonly title: string;
  /** What bends it. */
  readonly why: string;
  readonly points: readonly Point[];
}

export interface Scale {
  readonly environment: string;
  readonly curves: readonly Curve[];
  readonly cluster: readonly string[];
}

/** Prints the curves as tables; writes scale.json, scale.md and scale.html to a directory. */
export function scale(output: string | undefined): boolean {
  fdb(1000); // the compiler's turn
  const run = (points: readonly number[], of: (size: number) => Point) => points.map(of);
  const [byVteps, byFlood] = [run(SIZES.vteps, vteps), run(SIZES.flood, flood)];
  const curves: Curve[] = [
    {
      title: 'Entries in the FDB',
      why:
        'A lookup is one hash and one cell of 32 bytes as long as the table is at most half full, so only the caches bend it: up to ' +
        'some 10,000 entries the cells fit the second-level cache, and from 100,000 on most lookups wait for memory. Inserting takes some 3 us, and ' +
        'much longer while the tables are new: the kernel gives them a page when it is first touched.',
      points: run(SIZES.fdb, fdb),
    },
    {
      title: 'Remote VTEPs',
      why:
        'Two frames to different VTEPs cannot leave in one write. With one VTEP a batch is one run; with several nearly every frame is a run ' +
        'of its own, with its own headers and, outside of this benchmark, its own system call. Beyond that only caches count: a next hop is 128 bytes. A new VTEP has ' +
        'a place in each of four tables, which hashes spread over all of their pages: it takes four to six new pages, and the time of as many page faults, until all are in use.',
      points: byVteps,
    },
    {
      title: 'Members of a flood list',
      why: 'Head-end replication copies headers once a member, one after the other, so a frame costs in proportion, and a copy always the same.',
      points: byFlood,
    },
    {
      title: 'VNIs on one node',
      why:
        'A worker looks at every TAP in each round, and for the VNI of a packet from the first device on: both grow with the number of devices. ' +
        'Outside of this benchmark poll names the TAPs that have something, and looks at all of them for it.',
      points: run(SIZES.vnis, vnis),
    },
  ];
  const cluster = clusterText({
    nodes: CLUSTER,
    vteps: byVteps.find(({ VTEPs }) => VTEPs === CLUSTER)!,
    flood: byFlood.at(-1)!,
  });
  const result = { environment: environmentText(environment()), curves, cluster };
  console.log(scaleText(result));
  if (output === undefined) return true;
  mkdirSync(output, { recursive: true });
  writeFileSync(`${output}/scale.json`, `${JSON.stringify(result)}\n`);
  writeFileSync(`${output}/scale.md`, scaleText(result));
  writeFileSync(`${output}/scale.html`, scaleHtml(result));
  console.error(`written: scale.json, scale.md and scale.html in ${output}`);
  return true;
}

function isTime(name: string): boolean {
  return name !== PAGE_FAULTS && !name.includes('MB');
}

function rows(points: readonly Point[]): string[][] {
  const names = Object.keys(points[0]!);
  const heading = names.map((name, i) => (i === 0 || !isTime(name) ? name : `${name}, ns`));
  return [
    heading,
    ...points.map((point) =>
      names.map((name, i) => (i === 0 ? point[name]!.toLocaleString('en') : figure(point[name]!))),
    ),
  ];
}

/** Markdown, which reads well on a terminal, too. */
export function scaleText({ environment: it, curves, cluster }: Scale): string {
  const tables = curves.flatMap(({ title, why, points }) => {
    const [head, ...body] = rows(points).map((row) => `| ${row.join(' | ')} |`);
    return [`## ${title}`, '', head, `|${'---|'.repeat(rows(points)[0]!.length)}`, ...body, '', why, ''];
  });
  return [
    '# What grows with the size of a network',
    '',
    `${it}. One worker whose ports are memory, 64 bytes of UDP in a frame.`,
    '',
    ...tables,
    `## A cluster of ${CLUSTER.toLocaleString('en')} nodes, on paper`,
    '',
    ...cluster.map((line) => `- ${line}`),
    '',
  ].join('\n');
}

export function scaleHtml({ environment: it, curves, cluster }: Scale): string {
  const charts = curves.map(({ title, points }) => {
    const [x, ...others] = Object.keys(points[0]!) as [string, ...string[]];
    const series = others
      .filter(isTime)
      .map((name) => ({ name, points: points.map((point) => [point[x]!, point[name]!] as const) }));
    return lineChart({ title, x, y: 'nanoseconds', logY: true }, series);
  });
  return page('What grows with the size of a network', [
    '<h1>What grows with the size of a network</h1>',
    list([it]),
    `<div class="charts">${charts.join('\n')}</div>`,
    ...curves.flatMap(({ title, why, points }) => [`<h2>${title}</h2>`, table(rows(points)), list([why])]),
    `<h2>A cluster of ${CLUSTER.toLocaleString('en')} nodes, on paper</h2>`,
    list(cluster),
  ]);
}
