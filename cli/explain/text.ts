/** A packet on the terminal: every field in a line, with its bytes, value, meaning and origin. */
import {
  type Field,
  isBytes,
  type Layer,
  layerTitle,
  type Packet,
  problemsOf,
  valueText,
} from '../../packets/packet.ts';
import { bold, cyan, dim, red, yellow } from '../output.ts';
import { bitsText, type Explained } from './explained.ts';

const BYTES_SHOWN = 8;
const NAME = 22;
const BYTES = 28;

export function explainedText({ title, packet, comments, lookups, verdict }: Explained): string {
  const problems = problemsOf(packet);
  return [
    bold(title),
    ...comments.flatMap((comment) => comment.split('\n').map((line) => `  ${dim('#')} ${line}`)),
    packetText(packet),
    ...(lookups.length === 0 ? [] : [`  ${bold('Lookups')}`]),
    ...lookups.map(({ question, answer }, i) => `      ${i + 1}. ${question}\n         ${cyan(answer)}`),
    ...problems.map((problem) => `  ${red('Malformed:')} ${problem}`),
    ...(verdict === undefined ? [] : [`  ${bold('Verdict:')} ${verdict}`]),
  ].join('\n');
}

/** The layers of a packet alone. */
export function packetText(packet: Packet): string {
  return packet.layers.flatMap((layer) => layerText(packet, layer)).join('\n');
}

function layerText(packet: Packet, layer: Layer): string[] {
  const { reference } = layer;
  const at = `, ${layer.length} bytes at ${layer.offset}`;
  return [
    `  ${bold(layerTitle(packet, layer))}${at}${reference === '' ? '' : dim(` (${reference})`)}`,
    ...layer.fields.map((field) => fieldText(packet.bytes, field, reference)),
  ];
}

function fieldText(bytes: Uint8Array, field: Field, reference: string): string {
  const { name, offset, bit, bits, meaning, problem, origin } = field;
  const shown = bitsText(bytes, offset, bit, bits, BYTES_SHOWN).padEnd(BYTES);
  const parts = [
    ...(isBytes(field) ? [] : [valueText(field)]), // they are shown already
    ...(meaning === undefined ? [] : [meaning]),
    ...(problem === undefined ? [] : [red(problem)]),
    ...(field.reference === reference ? [] : [dim(`(${field.reference})`)]),
  ];
  const line = `      ${name.padEnd(NAME)} ${dim(shown)} ${parts.join('  ')}`.trimEnd();
  return origin === undefined ? line : `${line}\n      ${' '.repeat(NAME + BYTES + 1)} ${yellow(`<- ${origin}`)}`;
}
