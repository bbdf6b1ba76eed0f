/** The frame of an HTML report: one file, nothing from the network, light and dark. */
import { escaped } from './chart.ts';

const STYLE = `
:root { color-scheme: light dark; --ink: light-dark(#1d2733, #e4e8ee); --faint: light-dark(#d9dee5, #39424e);
  --bar: light-dark(#2f6fde, #6ea0ff); --base: light-dark(#8a94a3, #8a94a3); }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); max-width: 1180px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(440px, 1fr)); gap: 1.5rem 2.5rem; }
svg { width: 100%; height: auto; } svg text { font-size: 12px; fill: var(--ink); } svg .title { font-weight: 600; font-size: 13px; }
.bar { fill: var(--bar); } .base { fill: var(--base); } .whisker { stroke: var(--ink); fill: none; } .grid { stroke: var(--faint); }
.line { fill: none; stroke-width: 2; } .c0 { stroke: #8a94a3; } .c1 { stroke: #2f6fde; } .c2 { stroke: #e2762b; } .c3 { stroke: #2a9d62; }
.c4 { stroke: #b45ad1; } .c5 { stroke: #c9a227; } .c6 { stroke: #d1495b; } .c7 { stroke: #3aa6b9; } .dashed { stroke-dasharray: 6 3; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 13px; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid var(--faint); text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
`;

export function page(title: string, body: readonly string[]): string {
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>${escaped(title)}</title><style>${STYLE}</style></head>
<body>
${body.join('\n')}
</body></html>
`;
}

export function table(rows: readonly (readonly string[])[]): string {
  const cells = (row: readonly string[], tag: string) =>
    row.map((cell) => `<${tag}>${escaped(cell)}</${tag}>`).join('');
  const [head = [], ...body] = rows;
  return `<div class="wide"><table><tr>${cells(head, 'th')}</tr>${body.map((row) => `<tr>${cells(row, 'td')}</tr>`).join('\n')}</table></div>`;
}

export function list(items: readonly string[]): string {
  return `<ul>${items.map((item) => `<li>${escaped(item)}</li>`).join('\n')}</ul>`;
}
