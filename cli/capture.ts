/** `uvxlan capture`: the daemon's packets as pcapng, to a file, a ring of files, or standard output. */
import { CAPTURE_SNAP_LENGTH } from '../control/protocol.ts';
import { UsageError } from '../control/words.ts';
import { FilterError } from '../packets/filter/expression.ts';
import { compileFilter } from '../packets/filter/filter.ts';
import { CaptureWriter } from './capture/writer.ts';
import { openCapture } from './client.ts';
import { takeOptions } from './options.ts';
import { complain } from './output.ts';

export const HELP = `Usage: uvxlan capture [ dev DEV ] [ count N ] [ seconds N ] [ snaplen N ] [ size MB [ files N ] ] [ FILTER ]
Writes the packets of the running daemon as pcapng, to -w FILE or to standard output (uvxlan capture | wireshark -k -i -), until
Ctrl-C or a limit. Each packet comes twice: as the inner frame on the device, and as the outer packet on the NIC. Comments say where
it was sent and by which FDB entry, or why it was dropped; super-frames are kept whole, and say so.
  dev DEV    of one device only
  count N    end after N packets, each side counted
  seconds N  end after so long
  snaplen N  keep N bytes of a packet, ${CAPTURE_SNAP_LENGTH} (all) when not given: a short one costs the daemon less
  size MB    begin another file when one has this size: FILE0, FILE1, ...
  files N    keep N files: the oldest is written anew
  FILTER     in tcpdump's words, about the inner frame, of inner frames and outer packets: "icmp and host 10.244.2.2". Hosts, nets, ports,
             protocols, ether, vlan, less, greater, and, or, not; what it does not know it refuses
Options:
  -w, -write FILE      to a file
  -outer FILTER        only outer packets whose outer headers match: "host 192.0.2.2" for one VTEP
  -segments            super-frames cut up into the packets that come onto the wire, and unfinished checksums finished
Packets that come faster than they can be written are lost and counted; forwarding never waits.
Exit status: 0, 1 after a failure, 2 when the words are wrong.`;

interface Wish {
  dev?: string;
  count?: number;
  seconds?: number;
  snaplen?: number;
  size?: number;
  files?: number;
  filter: string;
}

const NUMBERS = ['count', 'seconds', 'snaplen', 'size', 'files'] as const;

export async function run(args: string[]): Promise<number> {
  const { options, words } = takeOptions(args, ['write', 'outer', 'segments']);
  const { write: file, outer = '', segments = false } = options;
  const wish = parseWish(words);
  checkFilter(outer);
  if (wish.files !== undefined && wish.size === undefined) throw new UsageError('files wants a size: size MB files N');
  if (wish.size !== undefined && file === undefined) throw new UsageError('size wants files to write: -w FILE');
  if (file === undefined && process.stdout.isTTY) {
    throw new UsageError('a capture is not for the terminal: give -w FILE, or a reader: uvxlan capture | tshark -r -');
  }
  const { dev = null, filter, snaplen: snapLength } = wish;
  const capture = await openCapture({
    dev,
    filter,
    outerFilter: outer,
    segments,
    ...(snapLength ? { snapLength } : {}),
  });
  let timer: NodeJS.Timeout | undefined;
  try {
    const writer = new CaptureWriter(file, wish, () => capture.finish());
    complain(`capturing${dev === null ? '' : ` on ${dev}`}, Ctrl-C ends it`);
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(signal, () => capture.finish());
    if (wish.seconds !== undefined) timer = setTimeout(() => capture.finish(), wish.seconds * 1000);
    const { written, lost, isWhole } = await writer.take(capture.chunks);
    complain(`${written} packet${written === 1 ? '' : 's'} captured, ${lost} lost`);
    if (!isWhole) complain('the daemon has ended the capture');
    return isWhole ? 0 : 1;
  } finally {
    clearTimeout(timer);
    capture.close();
  }
}

/** Throws UsageError. */
function parseWish(words: readonly string[]): Wish {
  const wish: Wish = { filter: '' };
  let next = 0;
  for (; next < words.length; next += 2) {
    const [word, value] = words.slice(next, next + 2);
    if (word === 'dev') {
      if (value === undefined) throw new UsageError('dev wants a name');
      wish.dev = value;
      continue;
    }
    const key = NUMBERS.find((name) => name === word);
    if (key === undefined) break;
    if (!/^[1-9]\d{0,8}$/.test(value ?? ''))
      throw new UsageError(`${word} wants a number from 1 on, not "${value ?? ''}"`);
    wish[key] = Number(value);
  }
  wish.filter = words.slice(next).join(' ');
  checkFilter(wish.filter);
  return wish;
}

function checkFilter(text: string): void {
  try {
    compileFilter(text);
  } catch (error) {
    throw error instanceof FilterError ? new UsageError(error.message) : error;
  }
}
