/** What was dropped, why, and what to do about it. */
import type { DropText, Live } from '../control/web/shapes.ts';
import { type Child, element, short } from './dom.js';

interface Row {
  readonly where: string;
  readonly name: string;
  readonly count: number;
}

export function listDrops(live: Live, texts: ReadonlyMap<string, DropText>): Child[] {
  const rows: Row[] = live.nodes.flatMap(({ name: node, devices, uplinks }) => [
    ...devices.flatMap(({ name, tx, rx }) => [
      ...rowsOf(`${node} ${name}`, tx.drops),
      ...rowsOf(`${node} ${name}`, rx.drops),
    ]),
    ...uplinks.flatMap(({ name, rx }) => rowsOf(`${node} ${name}`, rx.drops)),
  ]);
  if (rows.length === 0) return [element('p', {}, 'Nothing was dropped.')];
  rows.sort((a, b) => b.count - a.count);
  return rows.map(({ where, name, count }) => {
    const text = texts.get(name);
    return element(
      'article',
      { class: 'drop' },
      element('h3', {}, element('code', {}, name), ` ${short(count)} `, element('small', {}, where)),
      element('p', {}, text?.meaning ?? ''),
      element('p', { class: 'advice' }, text?.advice ?? ''),
    );
  });
}

function rowsOf(where: string, drops: Readonly<Record<string, number>>): Row[] {
  return Object.entries(drops).map(([name, count]) => ({ where, name, count }));
}
