/** UDP. */
import { get16 } from '../wire/bytes.ts';
import { fold, pseudoSum4, pseudoSum6, sum } from '../wire/checksum.ts';
import { PROTOCOL_TCP, PROTOCOL_UDP } from '../wire/ipv4.ts';
import { innerLayout, ipEnd, layoutNetwork, layoutProtocol, layoutTransport } from '../wire/layout.ts';
import { TCP_CHECKSUM } from '../wire/tcp.ts';
import { UDP_CHECKSUM, UDP_DESTINATION, UDP_HEADER, UDP_LENGTH, UDP_SOURCE } from '../wire/udp.ts';
import { VXLAN_HEADER } from '../wire/vxlan.ts';
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
  header.number('checksum', UDP_CHECKSUM, 2, { base: 16, ...checksumExtra(d, network, udp, length, isVxlan) });
  if (length < UDP_HEADER) {
    d.fail(udp + UDP_HEADER, end, `the UDP length, ${length}, is less than the header's`);
    return;
  }
  const payloadEnd = Math.min(end, udp + length);
  if (isVxlan) dissectVxlan(d, udp + UDP_HEADER, payloadEnd);
  else d.data('data', udp + UDP_HEADER, payloadEnd);
  d.data('data beyond the UDP length', payloadEnd, end);
}

function checksumExtra(d: Dissection, network: Network, udp: number, length: number, isVxlan: boolean): Extra {
  if (get16(d.bytes, udp + UDP_CHECKSUM) === 0) {
    if (network.version === 4) return { meaning: 'none' };
    return { meaning: 'none: over IPv6 for tunnels only', reference: 'RFC 6935, 5' };
  }
  const extra = transportChecksum(d, network, PROTOCOL_UDP, udp, udp + length, udp + UDP_CHECKSUM);
  if (extra.problem === undefined || !isVxlan || !holdsOnceFinished(d.bytes, network, udp, length)) return extra;
  return { meaning: 'correct once the NIC has finished the inner one' };
}

/**
 * Whether a VXLAN packet's checksum counts an inner one that is still unfinished as finished (local checksum offload, Linux: lco_csum):
 * what that covers will sum to the complement of what its field holds now.
 */
function holdsOnceFinished(bytes: Uint8Array, network: Network, udp: number, length: number): boolean {
  const frame = udp + UDP_HEADER + VXLAN_HEADER;
  const layout = innerLayout(bytes, frame, udp + length - frame);
  const protocol = layoutProtocol(layout);
  const transport = frame + layoutTransport(layout);
  if (layout === 0 || (protocol !== PROTOCOL_TCP && protocol !== PROTOCOL_UDP)) return false;
  const ip = frame + layoutNetwork(layout);
  const covered = frame + ipEnd(bytes, frame, layoutNetwork(layout)) - transport;
  const inner = (bytes[ip] >> 4 === 4 ? pseudoSum4 : pseudoSum6)(bytes, ip, protocol, covered);
  const field = transport + (protocol === PROTOCOL_TCP ? TCP_CHECKSUM : UDP_CHECKSUM);
  if (sum(bytes, field, 2) !== inner) return false;
  const pseudo = (network.version === 4 ? pseudoSum4 : pseudoSum6)(bytes, network.ip, PROTOCOL_UDP, length);
  return fold(sum(bytes, udp, transport - udp, pseudo) + (~inner & 0xffff)) === 0xffff;
}
