/** Carries the comparison out, and writes its reports. */
import { mkdirSync, writeFileSync } from 'node:fs';
import type { CompareOptions } from './arguments.ts';
import { environment } from './environment.ts';
import { htmlReport } from './report/html.ts';
import { markdownReport, terminalReport } from './report/text.ts';
import type { Result } from './result.ts';
import { runRounds } from './rounds.ts';
import { checkCongestion, socketsText } from './sockets.ts';

/** Prints the report; returns whether every figure could be had. */
export async function compare(options: CompareOptions, command: string): Promise<boolean> {
  const { pace, limit, output, rounds, congestion } = options;
  if (congestion !== undefined) checkCongestion(congestion);
  if (output !== undefined) mkdirSync(output, { recursive: true }); // so that it does not fail in the end
  const started = new Date();
  const skipped: { what: string; why: string }[] = [];
  const runs = <T extends { name: string }>(items: readonly T[], lacks: (item: T) => string | undefined): T[] =>
    items.filter((item) => {
      const why = lacks(item);
      if (why !== undefined) skipped.push({ what: item.name, why });
      return why === undefined;
    });
  const peers = runs(options.peers, ({ left, right }) => left.lacks() ?? right.lacks());
  const measures = runs(options.measures, (measure) => measure.lacks?.());
  if (peers.length === 0 || measures.length === 0) {
    throw new Error(`nothing can run here: ${skipped.map(({ what, why }) => `${what}: ${why}`).join('; ')}`);
  }
  const found = { ...environment(), sockets: socketsText(congestion) };
  const outcome = await runRounds({ peers, measures, rounds, pace, limit, congestion, progress: progress(started) });
  if (process.stderr.isTTY) process.stderr.write('\r\x1b[K');
  const result: Result = {
    format: 1,
    started: started.toISOString(),
    seconds: Math.round((Date.now() - started.getTime()) / 1000),
    command,
    environment: found,
    pace,
    peers: peers.map(({ name, about }) => ({ name, about })),
    quantities: measures.flatMap(({ quantities }) => quantities),
    skipped,
    ...outcome,
  };
  console.log(terminalReport(result));
  if (output !== undefined) writeReports(result, output);
  return result.runs.every(({ failures }) => failures.length === 0);
}

/** report.json, report.md and report.html. */
export function writeReports(result: Result, directory: string): void {
  mkdirSync(directory, { recursive: true });
  writeFileSync(`${directory}/report.json`, `${JSON.stringify(result)}\n`);
  writeFileSync(`${directory}/report.md`, markdownReport(result));
  writeFileSync(`${directory}/report.html`, htmlReport(result));
  console.error(`written: report.json, report.md and report.html in ${directory}`);
}

/** On a terminal one line that changes, else one line for each peer. */
function progress(started: Date): (what: string, done: number) => void {
  let last = '';
  return (what, done) => {
    const elapsed = (Date.now() - started.getTime()) / 1000;
    const left = done > 0.02 ? `, about ${Math.ceil(((elapsed / done) * (1 - done)) / 60)} min left` : '';
    if (process.stderr.isTTY) {
      process.stderr.write(`\r\x1b[K${what}${left}`);
      return;
    }
    const peer = what.slice(0, what.lastIndexOf(': '));
    if (peer !== last) process.stderr.write(`${peer}${left}\n`);
    last = peer;
  };
}
