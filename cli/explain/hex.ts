/** Packets as people paste them: hex digits, one packet a paragraph. */
import { CaptureError, type ReadPacket } from '../../packets/capture-reader.ts';

/** An offset, as tcpdump -x ("0x0010:"), xxd ("00000010:") and hexdump ("0000010 ") print one in front of each line. */
const OFFSET = /^\s*(0x[\da-f]{1,8}:|[\da-f]{4,8}:(?=\s)|[\da-f]{6,8}\s+(?=([\da-f]{2}\s)))/i;
/** What they print behind it: the bytes as text, after two spaces. */
const TEXT = /\s{2,}\S.*$/;
/** Longer input is not a pasted packet. */
const LONGEST = 1 << 20;

/** Throws CaptureError for what is neither hex nor white space, with its line. */
export async function* parseHex(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<ReadPacket, void> {
  let digits = '';
  let number = 0;
  let line = 0;
  const packet = (): ReadPacket => {
    if (digits.length % 2 !== 0) {
      throw new CaptureError(`line ${line}: an odd number of hex digits, ${digits.length}: one is missing`);
    }
    const bytes = Buffer.from(digits, 'hex');
    digits = '';
    return { number: ++number, bytes, length: bytes.length, linkType: 'ethernet', comments: [] };
  };
  for await (const text of lines(chunks)) {
    line++;
    if (text.trim() === '') {
      if (digits !== '') yield packet();
      continue;
    }
    // What tcpdump prints above a packet: it begins one.
    if (/^\d\d:\d\d:\d\d\.\d+ /.test(text)) {
      if (digits !== '') yield packet();
      continue;
    }
    digits += hexOf(text, line);
    if (digits.length > 2 * LONGEST) throw new CaptureError(`line ${line}: more than ${LONGEST} bytes of one packet`);
  }
  if (digits !== '') yield packet();
  if (number === 0) throw new CaptureError('standard input has no packet: give hex digits, or a capture');
}

function hexOf(text: string, line: number): string {
  const offset = OFFSET.exec(text)?.[0] ?? '';
  const rest = text.slice(offset.length).trim();
  const digits = (offset === '' ? rest : rest.replace(TEXT, '')).replace(/0x|[\s:,-]/gi, '');
  const wrong = /[^\da-f]/i.exec(digits);
  if (wrong) throw new CaptureError(`line ${line}: "${wrong[0]}" is no hex digit`);
  return digits;
}

async function* lines(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<string, void> {
  const decoder = new TextDecoder('latin1');
  let pending = '';
  for await (const chunk of chunks) {
    pending += decoder.decode(chunk, { stream: true });
    const parts = pending.split('\n');
    pending = parts.pop()!;
    if (pending.length > 4 * LONGEST) throw new CaptureError('a line is too long for hex digits of a packet');
    yield* parts;
  }
  if (pending !== '') yield pending;
}
