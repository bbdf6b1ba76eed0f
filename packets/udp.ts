/** UDP. */
import { get16 } from '../wire/bytes.ts';
import { PROTOCOL_UDP } from '../wire/ipv4.ts';
import { UDP_CHECKSUM, UDP_DESTINATION, UDP_HEADER, UDP_LENGTH, UDP_SOURCE } from '../wire/udp.ts';
import type { Dissection, Extra } from './dissection.ts';
import { type Network, transportChecksum } from './ip.ts';
import { lengthExtra } from './ipv4.ts';
import { portName } from './names.ts';
import { dissectVxlan } from './vxlan.ts';

const RFC = 'RFC 768';

export function dissectUdp(d: Dissection, network: Network, udp: number, end: number): void {
  if (!d.holds('UDP', udp, end, UDP_HEADER)) return;
  const { bytes } = d;
  const length = get16(bytes, udp + UDP_LENGTH);
  const destination = get16(bytes, udp + UDP_DESTINATION);
  const header = d.header('UDP', udp, UDP_HEADER, RFC);
  header.number('source port', UDP_SOURCE, 2, { meaning: portName(get16(bytes, udp + UDP_SOURCE)) });
  const isVxlan = d.vxlanPorts.includes(destination);
  header.number('destination port', UDP_DESTINATION, 2, {
    meaning: portName(destination) ?? (isVxlan ? 'VXLAN' : undefined),
  });
  const lengthProblem = length < UDP_HEADER ? { problem: 'less than the header has' } : undefined;
  const isWhole = !network.isFragment;
  header.number('length', UDP_LENGTH, 2, lengthProblem ?? (isWhole ? lengthExtra(d, length, end - udp) : {}));
  header.number('checksum', UDP_CHECKSUM, 2, { base: 16, ...checksumExtra(d, network, udp, length) });
  if (length < UDP_HEADER) {
    d.fail(udp + UDP_HEADER, end, `the UDP length, ${length}, is less than the header's`);
    return;
  }
  const payloadEnd = Math.min(end, udp + length);
  if (isVxlan) dissectVxlan(d, udp + UDP_HEADER, payloadEnd);
  else d.data('data', udp + UDP_HEADER, payloadEnd);
  d.data('data beyond the UDP length', payloadEnd, end);
}

function checksumExtra(d: Dissection, network: Network, udp: number, length: number): Extra {
  if (get16(d.bytes, udp + UDP_CHECKSUM) === 0) {
    if (network.version === 4) return { meaning: 'none' };
    return { meaning: 'none: over IPv6 for tunnels only', reference: 'RFC 6935, 5' };
  }
  return transportChecksum(d, network, PROTOCOL_UDP, udp, udp + length, udp + UDP_CHECKSUM);
}
