/** What commands print. Colours only on a terminal, and not with NO_COLOR (no-color.org). */

const coloured = process.stdout.isTTY === true && !process.env.NO_COLOR && process.env.TERM !== 'dumb';

export function print(text: string): void {
  process.stdout.write(`${text}\n`);
}

/** JSON as iproute2 prints it: one line, or with -p indented. */
export function printJson(value: unknown, pretty = false): void {
  print(JSON.stringify(value, undefined, pretty ? 4 : undefined));
}

export function bold(text: string): string {
  return coloured ? `\x1b[1m${text}\x1b[22m` : text;
}

export function yellow(text: string): string {
  return coloured ? `\x1b[33m${text}\x1b[39m` : text;
}

export function green(text: string): string {
  return coloured ? `\x1b[32m${text}\x1b[39m` : text;
}

export function red(text: string): string {
  return coloured ? `\x1b[31m${text}\x1b[39m` : text;
}

export function cyan(text: string): string {
  return coloured ? `\x1b[36m${text}\x1b[39m` : text;
}

export function dim(text: string): string {
  return coloured ? `\x1b[2m${text}\x1b[22m` : text;
}

/** A failure or a note on standard error. */
export function complain(message: string): void {
  for (const line of message.split('\n')) process.stderr.write(`uvxlan: ${line}\n`);
}
