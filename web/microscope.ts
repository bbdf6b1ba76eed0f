/**
 * The packet microscope: packets of the next seconds, the bytes of one beside its layers, either lighting up the other, and its way through
 * the encapsulation step by step.
 */
import type { FieldShape, LayerShape, Live, PacketList, PacketShape } from '../control/web/shapes.ts';
import { element } from './dom.js';
import { shownFirst, stepsOf } from './steps.js';

/** Bytes that the server takes (LARGEST_CAPTURE of shapes.ts, of which the browser has the types alone). */
const LARGEST_CAPTURE = 16 * 1024 * 1024;

const KEYS: Readonly<Record<string, number>> = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 };

export class Microscope {
  readonly #device = element('select', { 'aria-label': 'Device' });
  readonly #filter = element('input', {
    type: 'search',
    placeholder: "filter in tcpdump's words: icmp and host …",
    'aria-label': 'Filter',
    size: 34,
  });
  readonly #button = element('button', { type: 'submit' }, 'Look at packets');
  readonly #file = element('input', { type: 'file', accept: '.pcap,.pcapng,.cap', 'aria-label': 'Open a capture' });
  readonly #says = element('p', { role: 'status' });
  readonly #list = element('ol', { class: 'packets', 'aria-label': 'Packets' });
  readonly #view = element('div', { class: 'view' });

  constructor(parent: HTMLElement) {
    const form = element('form', { class: 'controls' }, this.#device, this.#filter, this.#button);
    const upload = element('label', { class: 'controls upload' }, 'or open a capture (pcap, pcapng): ', this.#file);
    this.#file.addEventListener('change', () => void this.#open());
    parent.append(form, upload, this.#says, this.#list, this.#view);
    form.addEventListener('submit', (event) => {
      event.preventDefault();
      void this.#look();
    });
    this.#list.addEventListener('keydown', (event) => moveFocus(event, this.#list, 'button'));
  }

  setDevices({ nodes }: Live): void {
    const values = nodes.flatMap(({ name, devices }) => devices.map((device) => `${name} ${device.name}`));
    if ([...this.#device.options].map(({ value }) => value).join('\n') === values.join('\n')) return;
    this.#device.replaceChildren(...values.map((value) => element('option', { value }, value.replace(' ', ' · '))));
  }

  #look(): Promise<void> {
    const [node = '', dev = ''] = this.#device.value.split(' ');
    const query = new URLSearchParams({ node, dev, filter: this.#filter.value });
    return this.#ask('looking for three seconds …', `api/packets?${query}`);
  }

  /** A file of the reader's own: the daemon takes it apart, and keeps nothing of it. */
  async #open(): Promise<void> {
    const file = this.#file.files?.[0];
    if (!file) return;
    const query = new URLSearchParams({ filter: this.#filter.value });
    await this.#ask(`reading ${file.name} …`, `api/open?${query}`, {
      method: 'POST',
      headers: { 'content-type': 'application/octet-stream' },
      body: file.slice(0, LARGEST_CAPTURE),
    });
    if (file.size > LARGEST_CAPTURE) this.#says.append(` Only the first ${LARGEST_CAPTURE >> 20} MB were read.`);
    this.#file.value = ''; // so that the same file may be opened again
  }

  /** Shows the packet that was dropped last for a reason. */
  async openSample(query: Record<string, string>): Promise<void> {
    await this.#ask('asking for the packet …', `api/sample?${new URLSearchParams(query)}`);
    const packet = this.#list.querySelector('button');
    packet?.click();
    packet?.focus();
    this.#says.scrollIntoView();
  }

  async #ask(meanwhile: string, path: string, init?: RequestInit): Promise<void> {
    this.#button.disabled = true;
    this.#says.textContent = meanwhile;
    try {
      const response = await fetch(path, init);
      if (!response.ok) throw new Error(await response.text());
      this.#show((await response.json()) as PacketList);
    } catch (error) {
      this.#says.textContent = (error as Error).message;
    } finally {
      this.#button.disabled = false;
    }
  }

  #show({ packets, note = '' }: PacketList): void {
    const count = `${packets.length} packet${packets.length === 1 ? '' : 's'}`;
    const more = note && ` (${note})`;
    this.#says.textContent = packets.length === 0 ? `No packet matched.${more}` : `${count}${more}; pick one.`;
    this.#view.replaceChildren();
    this.#list.replaceChildren(
      ...packets.map((packet) => {
        const button = element(
          'button',
          { type: 'button' },
          `${packet.time} ${packet.interface} ${packet.direction} ${packet.summary}`,
        );
        if (packet.comments.some((comment) => comment.startsWith('dropped'))) button.classList.add('dropped');
        button.addEventListener('click', () => {
          for (const other of this.#list.querySelectorAll('button'))
            other.setAttribute('aria-pressed', `${other === button}`);
          this.#view.replaceChildren(...new PacketView(packet).parts);
        });
        return element('li', {}, button);
      }),
    );
  }
}

class PacketView {
  readonly parts: HTMLElement[];
  readonly #packet: PacketShape;
  readonly #bytes: HTMLElement[];
  readonly #fields: { readonly field: FieldShape; readonly row: HTMLElement }[] = [];
  readonly #layers: { readonly layer: LayerShape; readonly section: HTMLElement }[] = [];
  readonly #step = element('p', { class: 'step', 'aria-live': 'polite' });

  constructor(packet: PacketShape) {
    this.#packet = packet;
    const octets = packet.hex.match(/../g) ?? [];
    this.#bytes = octets.map((octet, i) => {
      const layer = packet.layers.findLast(({ offset, length }) => i >= offset && i < offset + length);
      return element('span', { 'data-at': i, class: layer ? `depth${Math.min(layer.depth, 1)}` : '' }, octet);
    });
    const dump = element('div', { class: 'bytes', 'aria-label': `${packet.length} bytes` }, ...this.#bytes);
    const tree = element(
      'div',
      { class: 'layers', 'aria-label': 'Layers' },
      ...packet.layers.map((layer) => this.#layer(layer)),
    );
    const notes = element('ul', {}, ...packet.comments.map((comment) => element('li', {}, comment)));
    if (packet.fault) notes.append(element('li', { class: 'trouble' }, packet.fault.message));
    const cut = octets.length < packet.length ? `the first ${octets.length} of ` : '';
    this.parts = [
      this.#steps(),
      notes,
      element('p', {}, `${cut}${packet.length} bytes`),
      element('div', { class: 'sides' }, dump, tree),
    ];
    dump.addEventListener('pointerover', (event) => this.#overByte(event));
    dump.addEventListener('pointerleave', () => this.#light(undefined));
    tree.addEventListener('keydown', (event) => moveFocus(event, tree, '.field'));
  }

  #layer(layer: LayerShape): HTMLElement {
    const rows = layer.fields.map((field) => {
      const row = element(
        'div',
        { class: field.problem ? 'field wrong' : 'field', tabindex: 0 },
        element('span', { class: 'name' }, field.name),
        element('code', {}, field.value),
        element('span', { class: 'meaning' }, [field.meaning, field.problem].filter(Boolean).join(': ')),
        element('small', {}, [field.reference, field.origin].filter(Boolean).join('; ')),
      );
      row.addEventListener('pointerenter', () => this.#light(field));
      row.addEventListener('focus', () => this.#light(field));
      this.#fields.push({ field, row });
      return row;
    });
    const section = element(
      'section',
      { class: `layer depth${Math.min(layer.depth, 1)}` },
      element('h3', {}, layer.title, ' ', element('small', {}, layer.reference)),
      ...rows,
    );
    this.#layers.push({ layer, section });
    return section;
  }

  #overByte(event: PointerEvent): void {
    const at = Number((event.target as HTMLElement).dataset.at);
    if (Number.isNaN(at)) return;
    // The narrowest field that holds the byte: headers may be told as a whole, too.
    const over = this.#fields
      .filter(({ field }) => at >= field.offset && at < endOf(field))
      .sort((a, b) => a.field.bits - b.field.bits)[0];
    this.#light(over?.field);
    over?.row.scrollIntoView({ block: 'nearest' });
  }

  #light(lit: FieldShape | undefined): void {
    for (const { field, row } of this.#fields) row.classList.toggle('lit', field === lit);
    for (const [i, byte] of this.#bytes.entries()) {
      byte.classList.toggle('lit', lit !== undefined && i >= lit.offset && i < endOf(lit));
    }
  }

  /** Forwards on the way out, backwards on the way in. */
  #steps(): HTMLElement {
    const steps = stepsOf(this.#packet);
    if (steps.length < 2) return element('div');
    let at = 0;
    const back = element('button', { type: 'button' }, '◂ step back');
    const next = element('button', { type: 'button' }, 'step ▸');
    const go = (to: number): void => {
      at = Math.max(0, Math.min(steps.length - 1, to));
      back.disabled = at === 0;
      next.disabled = at === steps.length - 1;
      const { text, from } = steps[at];
      this.#step.textContent = `${at + 1} of ${steps.length}: ${text}`;
      for (const [i, byte] of this.#bytes.entries()) byte.classList.toggle('hidden', i < from);
      for (const { layer, section } of this.#layers) section.classList.toggle('hidden', layer.offset < from);
    };
    back.addEventListener('click', () => go(at - 1));
    next.addEventListener('click', () => go(at + 1));
    const first = element('button', { type: 'button' }, 'from the start');
    first.addEventListener('click', () => go(0));
    const row = element('div', { class: 'controls steps' }, first, back, next);
    row.addEventListener('keydown', (event) => {
      const by = KEYS[event.key];
      if (by === undefined) return;
      event.preventDefault();
      go(at + by);
    });
    go(shownFirst(steps));
    return element('div', { class: 'stepper' }, row, this.#step);
  }
}

function endOf({ offset, bit, bits }: FieldShape): number {
  return offset + ((bit + bits + 7) >> 3);
}

/** Arrow keys go from one to the next, as Tab does. */
function moveFocus(event: KeyboardEvent, parent: HTMLElement, selector: string): void {
  const by = event.key === 'ArrowDown' ? 1 : event.key === 'ArrowUp' ? -1 : 0;
  if (by === 0) return;
  const all = [...parent.querySelectorAll<HTMLElement>(selector)];
  const next = all[all.indexOf(document.activeElement as HTMLElement) + by];
  if (!next) return;
  event.preventDefault();
  next.focus();
}
