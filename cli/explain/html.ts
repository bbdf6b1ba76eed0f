/**
 * Packets as a page of its own: no outside address, and nothing of a packet is taken for HTML. A field and its bytes light up
 * together.
 */
import { createHash } from 'node:crypto';
import { type Field, isBytes, layerTitle, problemsOf, valueText } from '../../packets/packet.ts';
import { bitsText, type Explained } from './explained.ts';

/** More of a super-frame's payload nobody reads. */
const BYTES_SHOWN = 2048;

const STYLE = `
:root { color-scheme: light dark; font: 15px/1.45 system-ui, sans-serif; }
body { max-width: 90rem; margin: 1rem auto; padding: 0 1rem; }
section { display: flex; flex-wrap: wrap; gap: 1rem 2rem; margin-bottom: 2.5rem; }
h2, .wide { flex-basis: 100%; margin: 0; }
pre, td, .bytes { font-family: ui-monospace, monospace; font-size: 13px; }
.bytes { white-space: pre-wrap; width: 49ch; align-self: start; position: sticky; top: 0; }
table { border-collapse: collapse; }
caption, th { text-align: left; font-weight: 600; padding-top: .7rem; }
td { padding: 0 .8rem 0 0; vertical-align: top; }
.meaning, .reference { font-family: inherit; }
.reference { opacity: .6; }
.origin { color: light-dark(#06c, #8cf); }
.problem { color: light-dark(#b00, #f88); font-weight: 600; }
tr:hover, tr:focus, .on { background: light-dark(#fe9, #754); outline: none; }`;

const SCRIPT = `
const light = (section, from, to) => {
  for (const byte of section.querySelectorAll('.bytes span'))
    byte.classList.toggle('on', +byte.dataset.at >= from && +byte.dataset.at < to);
  for (const row of section.querySelectorAll('tr[data-from]'))
    row.classList.toggle('on', from >= 0 && +row.dataset.from < to && +row.dataset.to > from);
};
for (const section of document.querySelectorAll('section')) {
  const show = ({ target }) => {
    const row = target.closest('tr[data-from]'), byte = target.closest('.bytes span');
    if (row) light(section, +row.dataset.from, +row.dataset.to);
    else if (byte) light(section, +byte.dataset.at, +byte.dataset.at + 1);
    else light(section, -1, -1);
  };
  section.addEventListener('mouseover', show);
  section.addEventListener('focusin', show);
}`;

/** What stands before the packets. */
export function htmlHead(title: string): string {
  const hash = createHash('sha256').update(SCRIPT).digest('base64');
  const policy = `default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-${hash}'`;
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="${policy}">
<title>${escaped(title)}</title><style>${STYLE}</style></head><body>`;
}

/** What stands behind them. */
export function htmlTail(): string {
  return `<script>${SCRIPT}</script></body></html>`;
}

export function explainedHtml({ title, packet, comments, lookups, verdict }: Explained): string {
  const problems = problemsOf(packet);
  const list = (name: string, items: readonly string[]): string =>
    items.length === 0 ? '' : `<div class="wide"><b>${name}</b><ol>${items.join('')}</ol></div>`;
  const asked = lookups.map(
    ({ question, answer }) => `<li>${escaped(question)}<br><span class="origin">${escaped(answer)}</span></li>`,
  );
  return `<section><h2>${escaped(title)}</h2>
${comments.map((comment) => `<pre class="wide">${escaped(comment)}</pre>`).join('')}
<div class="bytes">${bytesHtml(packet.bytes)}</div>
<div>${packet.layers
    .map(
      (layer) =>
        `<table><caption>${escaped(layerTitle(packet, layer))}, ${layer.length} bytes at ${layer.offset}</caption>
${layer.fields.map((field) => fieldHtml(packet.bytes, field)).join('\n')}</table>`,
    )
    .join('\n')}</div>
${list('Lookups', asked)}
${problems.map((problem) => `<p class="wide problem">Malformed: ${escaped(problem)}</p>`).join('')}
${verdict === undefined ? '' : `<p class="wide"><b>Verdict:</b> ${escaped(verdict)}</p>`}</section>`;
}

function fieldHtml(bytes: Uint8Array, field: Field): string {
  const { name, offset, bit, bits, meaning = '', problem, origin, reference } = field;
  const to = offset + ((bit + bits + 7) >> 3);
  return `<tr tabindex="0" data-from="${offset}" data-to="${to}"><td>${escaped(name)}</td>
<td>${bitsText(bytes, offset, bit, bits, 8)}</td><td>${isBytes(field) ? '' : escaped(valueText(field))}</td>
<td class="meaning">${escaped(meaning)} ${problem === undefined ? '' : `<span class="problem">${escaped(problem)}</span>`}
${origin === undefined ? '' : `<span class="origin">from ${escaped(origin)}</span>`}</td>
<td class="reference">${escaped(reference)}</td></tr>`;
}

function bytesHtml(bytes: Uint8Array): string {
  const shown = Array.from(bytes.subarray(0, BYTES_SHOWN), (byte, i) => {
    const end = i % 16 === 15 ? '\n' : ' ';
    return `<span data-at="${i}">${byte.toString(16).padStart(2, '0')}</span>${end}`;
  }).join('');
  return bytes.length > BYTES_SHOWN ? `${shown}\n... ${bytes.length - BYTES_SHOWN} more` : shown;
}

function escaped(text: string): string {
  return text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);
}
