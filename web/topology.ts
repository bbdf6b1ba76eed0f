/** Nodes, their devices and the VTEPs that these send to, with what flows on each edge. */
import type { Counts, DeviceState, Live, PeerState } from '../control/web/shapes.ts';
import { bitRate, type Child, element, short, svg } from './dom.js';
import type { DeviceRates } from './rates.js';

const ROW = 38;
const WIDTH = 640;
/** Where the device's box ends, the edges part, and the VTEPs' boxes begin. */
const [BOX, FORK, PEERS] = [176, 206, 420];

export function drawTopology(live: Live, rates: ReadonlyMap<string, DeviceRates>): Child[] {
  return live.nodes.flatMap((node) => {
    if (node.error !== undefined) return [element('p', { class: 'trouble' }, `${node.name}: ${node.error}`)];
    if (node.devices.length === 0) return [element('p', {}, `${node.name} has no device yet.`)];
    return node.devices.map((device) => drawDevice(node.name, device, rates.get(`${node.name} ${device.name}`)));
  });
}

function drawDevice(node: string, device: DeviceState, rates: DeviceRates | undefined): Element {
  const { total, rows } = device.peers;
  const height = Math.max(2, rows.length + (total > rows.length ? 1 : 0)) * ROW + 20;
  const middle = height / 2;
  const flow = rates ? `→ ${bitRate(rates.tx.bytes)}  ← ${bitRate(rates.rx.bytes)}` : '';
  const edges = rows.map((row) => `${row.address}: ${edgeText(row) || 'nothing'}`).join('; ');
  const picture = svg('svg', {
    viewBox: `0 0 ${WIDTH} ${height}`,
    role: 'img',
    'aria-label': `${node}, ${device.name}: VNI ${device.vni}, ${device.local}, ${flow}; ${total} VTEPs: ${edges}`,
    class: 'topology',
  });
  for (const [i, row] of rows.entries()) picture.append(...drawPeer(row, middle, 10 + ROW / 2 + i * ROW));
  picture.append(
    svg('rect', { x: 4, y: middle - 42, width: BOX - 4, height: 84, rx: 8, class: 'box' }),
    words(90, middle - 20, device.name, 'strong'),
    words(90, middle - 1, `VNI ${device.vni} · ${device.uplink}`),
    words(90, middle + 17, device.local),
    words(90, middle + 34, flow, 'rate'),
  );
  if (total > rows.length) picture.append(words((PEERS + WIDTH) / 2, height - 12, `and ${total - rows.length} more`));
  return element('figure', {}, element('figcaption', {}, node), picture);
}

function drawPeer(peer: PeerState, middle: number, y: number): SVGElement[] {
  const { address, macs, reason } = peer;
  const flow = edgeText(peer);
  const kind = reason ? ' broken' : flow ? ' busy' : '';
  const box = svg('rect', { x: PEERS, y: y - 14, width: WIDTH - PEERS - 4, height: 28, rx: 6, class: `box${kind}` });
  if (reason) box.append(svg('title', {}, reason));
  return [
    svg('path', { d: `M${BOX},${middle} L${FORK},${y} H${PEERS}`, class: `edge${kind}` }),
    box,
    words((PEERS + WIDTH) / 2, y + 5, `${address} · ${short(macs)} MAC${macs === 1 ? '' : 's'}`),
    words((FORK + PEERS) / 2, y - 5, reason ? 'cannot be reached' : flow, 'rate'),
  ];
}

function edgeText({ tx, rx }: PeerState): string {
  if (tx.packets + rx.packets === 0) return '';
  return `→ ${bitRate(tx.bytes)}  ← ${bitRate(rx.bytes)}`;
}

function words(x: number, y: number, text: string, kind = ''): SVGTextElement {
  return svg('text', { x, y, 'text-anchor': 'middle', class: kind }, text);
}

/** What a device is set to, and whom it cannot reach. */
export function describeDevices(live: Live): Child[] {
  return live.nodes.flatMap((node) =>
    node.devices.map((device) => {
      const facts: [string, string][] = [
        ['uplink', `${device.uplink} (${device.reason})`],
        ['address', `${device.mac}, mtu ${device.mtu}`],
        ['on the wire', `${device.local}, port ${device.port}${device.nic && `, ${device.nic}`}`],
        ['flow offload', offloadText(device)],
        ['FDB', `${device.entries} entries, ${device.workers} workers`],
        ...device.unresolved.map(({ dst, reason }): [string, string] => [`cannot reach ${dst}`, reason]),
      ];
      const list = element(
        'dl',
        {},
        ...facts.flatMap(([name, value]) => [element('dt', {}, name), element('dd', {}, value)]),
      );
      return element('details', {}, element('summary', {}, `${node.name} · ${device.name}`), list);
    }),
  );
}

/** What the kernel carries by itself and what the workers do, and why. */
function offloadText({ offload, tx, rx }: DeviceState): string {
  const part = ({ packets, offloaded }: Counts): string =>
    packets === 0 ? 'nothing yet' : `${short(offloaded)} of ${short(packets)} packets`;
  if (offload === 'off') return 'off: the workers carry everything ("offload auto" lets the kernel carry known flows)';
  return (
    `${offload}. The kernel has carried ${part(tx)} sent and ${part(rx)} received; the workers carry the rest: broadcast, unknown MACs, ` +
    'ARP, what is too large, fragments, and while somebody captures all of it'
  );
}
