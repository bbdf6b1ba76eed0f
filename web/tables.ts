/** FDB, neighbours and peers of a node: searched by the server, shown by the page of 100 rows. */
import type { MacHistory, Page } from '../control/web/shapes.ts';
import { type Child, element } from './dom.js';

const KINDS = {
  fdb: { title: 'FDB', columns: { mac: 'MAC', dev: 'device', dst: 'VTEP', state: 'state' } },
  neighbours: { title: 'Neighbours', columns: { address: 'address', dev: 'device', mac: 'MAC', state: 'state' } },
  peers: {
    title: 'Peers',
    columns: { address: 'VTEP', dev: 'device', macs: 'MACs', reason: 'cannot be reached because' },
  },
} as const;
type Row = Record<string, string | number>;
type Kind = keyof typeof KINDS;

/** Milliseconds between the last letter of a search and its answer being asked for. */
const PATIENCE = 200;

export class TableView {
  readonly #kind = element('select', { 'aria-label': 'Table' });
  readonly #node = element('select', { 'aria-label': 'Node' });
  readonly #query = element('input', { type: 'search', placeholder: 'search', 'aria-label': 'Search' });
  readonly #result = element('div', { 'aria-live': 'polite' });
  readonly #history = element('div', { 'aria-live': 'polite' });
  #offset = 0;
  #timer = 0;
  /** Answers come in any order: only the last one that was asked for counts. */
  #asked = 0;

  constructor(parent: HTMLElement) {
    for (const [kind, { title }] of Object.entries(KINDS)) this.#kind.append(element('option', { value: kind }, title));
    const form = element('form', { class: 'controls' }, this.#kind, this.#node, this.#query);
    parent.append(form, this.#result, this.#history);
    form.addEventListener('submit', (event) => event.preventDefault());
    form.addEventListener('input', () => {
      this.#offset = 0;
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => void this.show(), PATIENCE);
    });
  }

  setNodes(names: readonly string[]): void {
    const known = [...this.#node.options].map(({ value }) => value);
    if (known.join('\n') === names.join('\n')) return;
    this.#node.replaceChildren(...names.map((name) => element('option', { value: name }, name)));
    void this.show();
  }

  async show(): Promise<void> {
    const asked = ++this.#asked;
    const kind = this.#kind.value as Kind;
    const search = new URLSearchParams({ node: this.#node.value, q: this.#query.value, offset: `${this.#offset}` });
    const response = await fetch(`api/${kind}?${search}`);
    if (asked !== this.#asked) return;
    if (!response.ok) {
      this.#result.replaceChildren(element('p', { class: 'trouble' }, await response.text()));
      return;
    }
    this.#render(kind, (await response.json()) as Page<Row>);
  }

  /** Who moved this MAC, when, from where. */
  async #showHistory(mac: string, dev: string): Promise<void> {
    const response = await fetch(`api/history?${new URLSearchParams({ node: this.#node.value, dev, mac })}`);
    if (!response.ok) {
      this.#history.replaceChildren(element('p', { class: 'trouble' }, await response.text()));
      return;
    }
    const { changes, history } = (await response.json()) as MacHistory;
    const rows = history.map(({ time, event, dst, nhid, port, vni, from }) => {
      const at = `${port === undefined ? '' : ` port ${port}`}${vni === undefined ? '' : ` vni ${vni}`}`;
      const to = dst === undefined ? `nhid ${nhid ?? ''}` : `${dst}${at}`;
      return element('li', {}, `${new Date(time).toLocaleString()}: ${event} ${from ? `from ${from} to ${to}` : to}`);
    });
    const told = changes > history.length ? `, the last ${history.length} of ${changes}` : '';
    this.#history.replaceChildren(
      element('h3', {}, `Changes of ${mac} on ${dev}${told}`),
      rows.length > 0 ? element('ol', {}, ...rows) : element('p', {}, 'None is known.'),
    );
  }

  #render(kind: Kind, { total, offset, rows }: Page<Row>): void {
    const { columns } = KINDS[kind];
    const head = element('tr', {}, ...Object.values(columns).map((title) => element('th', { scope: 'col' }, title)));
    this.#history.replaceChildren();
    const cell = (row: Row, column: string): Child => {
      const text = `${row[column] ?? ''}`;
      if (kind !== 'fdb' || column !== 'mac') return text;
      const button = element('button', { type: 'button', class: 'link', title: 'its last changes' }, text);
      button.addEventListener('click', () => void this.#showHistory(text, `${row.dev}`));
      return button;
    };
    const body = rows.map((row) =>
      element('tr', {}, ...Object.keys(columns).map((column) => element('td', {}, cell(row, column)))),
    );
    const last = offset + rows.length;
    const text = total === 0 ? 'no rows' : `${offset + 1} to ${last} of ${total}`;
    const step = (label: string, to: number, possible: boolean): HTMLButtonElement => {
      const button = element('button', { type: 'button', disabled: !possible }, label);
      button.addEventListener('click', () => {
        this.#offset = to;
        void this.show();
      });
      return button;
    };
    this.#result.replaceChildren(
      element(
        'div',
        { class: 'scroll' },
        element('table', {}, element('thead', {}, head), element('tbody', {}, ...body)),
      ),
      element(
        'p',
        { class: 'controls' },
        step('previous', Math.max(0, offset - rows.length || 0), offset > 0),
        element('span', {}, text),
        step('next', last, last < total),
      ),
    );
  }
}
