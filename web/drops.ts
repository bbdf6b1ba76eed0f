/** What was dropped, why, what to do about it, and the packet that was dropped last. */
import type { DropText, Live } from '../control/web/shapes.ts';
import { element, short } from './dom.js';

interface Row {
  readonly node: string;
  /** The device, or the uplink. */
  readonly where: string;
  readonly reason: string;
  readonly count: number;
  readonly sample: Live['nodes'][number]['samples'][number] | undefined;
}

/** Asks to be shown a sample: the query of api/sample. */
export type OnSample = (query: Record<string, string>) => void;

export class DropList {
  readonly #parent: HTMLElement;
  readonly #texts: ReadonlyMap<string, DropText>;
  readonly #onSample: OnSample;
  /** What is shown, by node, place and reason: changed in place, so that what has the focus keeps it. */
  readonly #shown = new Map<string, DropView>();

  constructor(parent: HTMLElement, texts: ReadonlyMap<string, DropText>, onSample: OnSample) {
    this.#parent = parent;
    this.#texts = texts;
    this.#onSample = onSample;
  }

  show(live: Live): void {
    const rows = rowsOf(live);
    if (rows.length === 0) {
      this.#shown.clear();
      this.#parent.replaceChildren(element('p', {}, 'Nothing was dropped.'));
      return;
    }
    if (this.#shown.size === 0) this.#parent.replaceChildren();
    const keys = new Set<string>();
    for (const row of rows) {
      const key = `${row.node} ${row.where} ${row.reason}`;
      keys.add(key);
      let view = this.#shown.get(key);
      if (!view) {
        view = new DropView(row, this.#texts.get(row.reason), this.#onSample);
        this.#shown.set(key, view);
        this.#parent.append(view.article);
      }
      view.update(row);
    }
    for (const [key, { article }] of this.#shown) {
      if (keys.has(key)) continue;
      article.remove();
      this.#shown.delete(key);
    }
  }
}

class DropView {
  readonly article: HTMLElement;
  readonly #count = element('span');
  readonly #last = element('button', { type: 'button', hidden: true });
  #sample: Row['sample'];

  constructor({ node, where, reason }: Row, text: DropText | undefined, onSample: OnSample) {
    this.#last.addEventListener('click', () => onSample({ node, dev: this.#sample?.dev ?? '', reason }));
    this.article = element(
      'article',
      { class: 'drop' },
      element(
        'h3',
        {},
        element('code', {}, reason),
        ' ',
        this.#count,
        ' ',
        element('small', {}, `${node} ${where}`),
        ' ',
        this.#last,
      ),
      element('p', {}, text?.meaning ?? ''),
      element('p', { class: 'advice' }, text?.advice ?? ''),
    );
  }

  update({ count, sample }: Row): void {
    this.#sample = sample;
    this.#count.textContent = short(count);
    this.#last.hidden = sample === undefined;
    if (sample) this.#last.textContent = `the last one seen, ${new Date(sample.time).toLocaleTimeString()}`;
  }
}

function rowsOf(live: Live): Row[] {
  const rows = live.nodes.flatMap(({ name: node, devices, uplinks, samples }) => {
    const of = (where: string, drops: Readonly<Record<string, number>>): Row[] =>
      Object.entries(drops).map(([reason, count]) => ({
        ...{ node, where, reason, count },
        // What an uplink drops may be for a device of ours all the same.
        sample:
          samples.find((sample) => sample.reason === reason && sample.dev === where) ??
          samples.find((sample) => sample.reason === reason && !devices.some(({ name }) => name === where)),
      }));
    return [
      ...devices.flatMap(({ name, tx, rx }) => [...of(name, tx.drops), ...of(name, rx.drops)]),
      ...uplinks.flatMap(({ name, rx }) => of(name, rx.drops)),
    ];
  });
  return rows.sort((a, b) => b.count - a.count);
}
