/** Nanoseconds of what happens to each packet, and whether any of it leaves garbage: then it fails. */
import { type Case, measure, watch } from './micro/case.ts';
import { dataplaneCases } from './micro/dataplane.ts';
import { functionCases } from './micro/functions.ts';

/** Runs the cases with `word` in their names; returns whether the collector stayed away. Throws when there is none. */
export async function micro(word: string): Promise<boolean> {
  // Each by itself: what one case lays out should not lie in the caches of the next.
  const makers = [...functionCases, ...dataplaneCases];
  let collections = 0;
  let done = 0;
  for (const make of makers) {
    const item = make();
    if (!item.name.includes(word)) continue;
    if (done++ === 0) heading();
    collections += await row(item);
  }
  if (done === 0) throw new Error(`no case has "${word}" in its name`);
  if (collections > 0) console.error('\nThe garbage collector ran: something is allocated for each packet.');
  return collections === 0;
}

function heading(): void {
  console.log(`Node ${process.version}, ${process.arch}\n`);
  console.log(`${'case'.padEnd(36)}    ns each   M a second   Gbit/s   GC runs   heap bytes each`);
}

async function row(item: Case): Promise<number> {
  const { name, operations, bytes } = item;
  const seconds = measure(item);
  const watched = await watch(item, seconds);
  console.log(
    name.padEnd(36),
    ((seconds / operations) * 1e9).toFixed(seconds / operations < 1e-7 ? 1 : 0).padStart(10),
    (operations / seconds / 1e6).toFixed(2).padStart(12),
    (bytes > 0 ? ((bytes * 8) / seconds / 1e9).toFixed(1) : '').padStart(8),
    String(watched.collections).padStart(9),
    watched.bytes.toFixed(3).padStart(17),
  );
  return watched.collections;
}
