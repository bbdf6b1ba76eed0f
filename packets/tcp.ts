/** TCP with its options. */
import { get16, get32 } from '../wire/bytes.ts';
import { PROTOCOL_TCP } from '../wire/ipv4.ts';
import {
  TCP_ACK,
  TCP_CHECKSUM,
  TCP_DATA_OFFSET,
  TCP_DESTINATION,
  TCP_FLAGS,
  TCP_HEADER,
  TCP_SEQUENCE,
  TCP_SOURCE,
  TCP_URGENT,
  TCP_WINDOW,
  tcpHeaderLength,
} from '../wire/tcp.ts';
import type { Dissection, Header } from './dissection.ts';
import { type Network, transportChecksum } from './ip.ts';
import { portName } from './names.ts';

const RFC = 'RFC 9293, 3.1';
/** From the most significant bit of the byte at TCP_FLAGS. */
const FLAGS = ['CWR', 'ECE', 'URG', 'ACK', 'PSH', 'RST', 'SYN', 'FIN'];
const FLAG_MEANINGS: Record<string, string> = {
  CWR: 'congestion window reduced',
  ECE: 'congestion was seen',
  URG: 'the urgent pointer counts',
  ACK: 'the acknowledgment number counts',
  PSH: 'hand on at once',
  RST: 'reset',
  SYN: 'connection begins',
  FIN: 'sender is done',
};
const OPTION_END = 0;
const OPTION_NOP = 1;
const OPTIONS = new Map([
  [2, { name: 'maximum segment size', length: 4, reference: 'RFC 9293, 3.2' }],
  [3, { name: 'window scale', length: 3, reference: 'RFC 7323, 2.2' }],
  [4, { name: 'SACK permitted', length: 2, reference: 'RFC 2018, 2' }],
  [5, { name: 'SACK', length: 0, reference: 'RFC 2018, 3' }],
  [8, { name: 'timestamps', length: 10, reference: 'RFC 7323, 3.2' }],
]);

export function dissectTcp(d: Dissection, network: Network, tcp: number, end: number): void {
  if (!d.holds('TCP', tcp, end, TCP_HEADER)) return;
  const { bytes } = d;
  const length = tcpHeaderLength(bytes, tcp);
  if (length < TCP_HEADER) {
    d.fail(tcp, end, `the TCP header's length, ${length} bytes, is below 20`);
    return;
  }
  if (!d.holds('TCP', tcp, end, length)) return;
  const header = d.header('TCP', tcp, length, RFC);
  header.number('source port', TCP_SOURCE, 2, { meaning: portName(get16(bytes, tcp + TCP_SOURCE)) });
  header.number('destination port', TCP_DESTINATION, 2, { meaning: portName(get16(bytes, tcp + TCP_DESTINATION)) });
  header.number('sequence number', TCP_SEQUENCE, 4);
  header.number('acknowledgment number', TCP_ACK, 4);
  header.bits('header length', TCP_DATA_OFFSET, 0, 4, { meaning: `in words of 4 bytes: ${length} bytes` });
  header.bits('reserved', TCP_DATA_OFFSET, 4, 4);
  const flags = bytes[tcp + TCP_FLAGS];
  FLAGS.forEach((name, bit) => {
    header.bits(name, TCP_FLAGS, bit, 1, { meaning: (flags >> (7 - bit)) & 1 ? FLAG_MEANINGS[name] : undefined });
  });
  header.number('window', TCP_WINDOW, 2, { meaning: 'bytes, before scaling' });
  const checksum = transportChecksum(d, network, PROTOCOL_TCP, tcp, endOf(d, network, end), tcp + TCP_CHECKSUM);
  header.number('checksum', TCP_CHECKSUM, 2, { base: 16, ...checksum });
  header.number('urgent pointer', TCP_URGENT, 2);
  addOptions(bytes, header, tcp, length);
  d.data('data', tcp + length, end);
}

/** Where the segment ends: beyond what there is when a capture has cut it off. */
function endOf(d: Dissection, { version, ip }: Network, end: number): number {
  if (!d.cut || end < d.bytes.length) return end;
  return ip + (version === 4 ? get16(d.bytes, ip + 2) : 40 + get16(d.bytes, ip + 4));
}

function addOptions(bytes: Uint8Array, header: Header, tcp: number, length: number): void {
  for (let at = TCP_HEADER; at < length; ) {
    const kind = bytes[tcp + at];
    if (kind === OPTION_END) {
      header.number('end of options', at, 1);
      if (length > at + 1) header.hex('padding of options', at + 1, length - at - 1);
      return;
    }
    if (kind === OPTION_NOP) {
      header.number('no operation', at++, 1);
      continue;
    }
    const size = at + 1 < length ? bytes[tcp + at + 1] : 0;
    if (size < 2 || at + size > length) {
      header.hex('broken option', at, length - at, { problem: 'its length does not fit the header' });
      return;
    }
    addOption(header, at, kind, size, get32(bytes, tcp + at + 2));
    at += size;
  }
}

function addOption(header: Header, at: number, kind: number, size: number, word: number): void {
  const known = OPTIONS.get(kind);
  const reference = known?.reference ?? RFC;
  header.number('option kind', at, 1, { meaning: known?.name ?? 'not known here', reference });
  const isBroken = known !== undefined && known.length > 0 && known.length !== size;
  const problem = isBroken ? `has to be ${known.length}` : undefined;
  header.number('option length', at + 1, 1, { reference, problem });
  if (size === 2) return;
  if (isBroken || known === undefined) {
    header.hex('option data', at + 2, size - 2, { reference });
    return;
  }
  switch (kind) {
    case 2:
      header.number('maximum segment size', at + 2, 2, { reference });
      break;
    case 3:
      header.number('window scale', at + 2, 1, { meaning: `times ${2 ** Math.min(14, word >>> 24)}`, reference });
      break;
    case 8:
      header.number('timestamp value', at + 2, 4, { reference });
      header.number('timestamp echo reply', at + 6, 4, { reference });
      break;
    default:
      addSack(header, at + 2, size - 2, reference);
  }
}

function addSack(header: Header, at: number, length: number, reference: string): void {
  const whole = length - (length % 8);
  for (let edge = 0; edge < whole; edge += 8) {
    header.number('SACK left edge', at + edge, 4, { reference });
    header.number('SACK right edge', at + edge + 4, 4, { reference });
  }
  if (whole < length) header.hex('option data', at + whole, length - whole, { problem: 'half a block', reference });
}
