/** Nodes, their devices and the VTEPs that these send to, with what flows on each edge. */
import type { DeviceState, Live, PeerRow } from '../control/web/shapes.ts';
import { bitRate, type Child, element, short, svg } from './dom.js';
import type { DeviceRates } from './rates.js';

/** VTEPs that a device is drawn with; the table has all. */
const MOST_PEERS = 8;
const ROW = 34;
const WIDTH = 640;

/** By 'NODE DEVICE'. */
export type Peers = ReadonlyMap<string, readonly PeerRow[]>;

export function drawTopology(live: Live, rates: ReadonlyMap<string, DeviceRates>, peers: Peers): Child[] {
  return live.nodes.flatMap((node) => {
    if (node.error !== undefined) return [element('p', { class: 'trouble' }, `${node.name}: ${node.error}`)];
    if (node.devices.length === 0) return [element('p', {}, `${node.name} has no device yet.`)];
    return node.devices.map((device) => {
      const key = `${node.name} ${device.name}`;
      return drawDevice(node.name, device, rates.get(key), peers.get(key) ?? []);
    });
  });
}

function drawDevice(
  node: string,
  device: DeviceState,
  rates: DeviceRates | undefined,
  peers: readonly PeerRow[],
): Element {
  const shown = peers.slice(0, MOST_PEERS);
  const height = Math.max(2, shown.length + (peers.length > MOST_PEERS ? 1 : 0)) * ROW + 30;
  const middle = height / 2;
  const flow = rates ? `out ${bitRate(rates.tx.bytes)}, in ${bitRate(rates.rx.bytes)}` : '';
  const label = `${node}, ${device.name}: VNI ${device.vni}, ${device.local}, ${peers.length} VTEPs${flow && `, ${flow}`}`;
  const busy = rates !== undefined && rates.tx.packets + rates.rx.packets > 0;
  const picture = svg('svg', {
    viewBox: `0 0 ${WIDTH} ${height}`,
    role: 'img',
    'aria-label': label,
    class: 'topology',
  });
  picture.append(
    svg('rect', { x: 4, y: middle - 40, width: 190, height: 80, rx: 8, class: 'box' }),
    words(99, middle - 18, device.name, 'strong'),
    words(99, middle + 2, `VNI ${device.vni} · ${device.uplink}`),
    words(99, middle + 22, device.local),
    svg('line', { x1: 194, y1: middle, x2: 330, y2: middle, class: busy ? 'edge busy' : 'edge' }),
    words(262, middle - 10, rates ? `→ ${bitRate(rates.tx.bytes)}` : '', 'rate'),
    words(262, middle + 20, rates ? `← ${bitRate(rates.rx.bytes)}` : '', 'rate'),
  );
  for (const [i, { address, macs, reason }] of shown.entries()) {
    const y = 15 + ROW / 2 + i * ROW;
    picture.append(
      svg('line', { x1: 330, y1: middle, x2: 400, y2: y, class: reason ? 'edge broken' : 'edge' }),
      svg('rect', { x: 400, y: y - 14, width: 236, height: 28, rx: 6, class: reason ? 'box broken' : 'box' }),
      words(518, y + 5, `${address} · ${short(macs)} MAC${macs === 1 ? '' : 's'}`),
    );
    if (reason) picture.append(svg('title', {}, reason));
  }
  if (peers.length > MOST_PEERS) picture.append(words(518, height - 12, `and ${peers.length - MOST_PEERS} more`));
  return element('figure', {}, element('figcaption', {}, node), picture);
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
        ['offload', device.offload],
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
