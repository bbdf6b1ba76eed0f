/** Elements out of plain values. Text is always text: nothing that comes from a packet or a daemon is ever taken for HTML. */

export type Child = Node | string;
export type Attributes = Readonly<Record<string, string | number | boolean>>;

const SVG = 'http://www.w3.org/2000/svg';

export function element<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Attributes = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const made = document.createElement(tag);
  fill(made, attributes, children);
  return made;
}

export function svg<K extends keyof SVGElementTagNameMap>(
  tag: K,
  attributes: Attributes = {},
  ...children: Child[]
): SVGElementTagNameMap[K] {
  const made = document.createElementNS(SVG, tag);
  fill(made, attributes, children);
  return made;
}

/** The element of the page with this id, which index.html has. */
export function byId(id: string): HTMLElement {
  return document.getElementById(id)!;
}

function fill(made: Element, attributes: Attributes, children: readonly Child[]): void {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) made.setAttribute(name, '');
    else if (value !== false) made.setAttribute(name, `${value}`);
  }
  made.append(...children);
}

const UNITS = ['', ' k', ' M', ' G', ' T'];

/** 12345 as '12.3 k'. */
export function short(value: number): string {
  let unit = 0;
  let rest = value;
  while (rest >= 1000 && unit < UNITS.length - 1) {
    rest /= 1000;
    unit++;
  }
  return `${rest >= 100 || unit === 0 ? Math.round(rest) : rest.toFixed(1)}${UNITS[unit]}`;
}

/** Bytes a second as bits. */
export function bitRate(bytes: number): string {
  return `${short(bytes * 8)}bit/s`.replace(/(\d)bit/, '$1 bit');
}
