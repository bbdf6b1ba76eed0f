/** The page: what the stream of events tells is handed to the parts that show it. */
import type { DropText, Live } from '../control/web/shapes.ts';
import { Charts } from './charts.js';
import { byId } from './dom.js';
import { DropList } from './drops.js';
import { Microscope } from './microscope.js';
import { latencyBetween, ratesBetween } from './rates.js';
import { TableView } from './tables.js';
import { describeDevices, drawTopology } from './topology.js';

/** Milliseconds. */
const RETRY = 5_000;

const status = byId('status');
const charts = new Charts(byId('charts'));
const tables = new TableView(byId('table-view'));
const microscope = new Microscope(byId('microscope-view'));
const texts = new Map<string, DropText>();
const drops = new DropList(byId('drop-list'), texts, (query) => void microscope.openSample(query));
let last: Live | undefined;
let opened = '';

async function get<T>(path: string): Promise<T> {
  const response = await fetch(path);
  if (!response.ok) throw new Error(await response.text());
  return (await response.json()) as T;
}

function show(live: Live): void {
  const rates = ratesBetween(last, live);
  if (last) charts.add(live.time, rates.values(), latencyBetween(last, live));
  last = live;
  const working = live.nodes.filter(({ error }) => error === undefined);
  const devices = working.reduce((sum, node) => sum + node.devices.length, 0);
  status.textContent = `${working.length} of ${live.nodes.length} node${live.nodes.length === 1 ? '' : 's'}, ${devices} device${devices === 1 ? '' : 's'}`;
  byId('map').replaceChildren(...drawTopology(live, rates));
  // Drawn anew only when it says something else: somebody may have opened one.
  const described = describeDevices(live);
  const text = described.map((part) => (part as Element).textContent).join('\n');
  if (text !== opened) byId('devices').replaceChildren(...described);
  opened = text;
  drops.show(live);
  microscope.setDevices(live);
  tables.setNodes(live.nodes.map(({ name }) => name));
}

function trouble(text: string): void {
  status.textContent = text;
}

/** Asked for while the stream opens. */
const described = get<DropText[]>('api/drops').then((all) => {
  for (const drop of all) texts.set(drop.name, drop);
});
described.catch(({ message }: Error) => trouble(message));

/** The stream comes back by itself, except when it was refused. */
function listen(): void {
  const events = new EventSource('api/live');
  events.onmessage = ({ data }) => void described.then(() => show(JSON.parse(data as string) as Live));
  events.onerror = () => {
    trouble('The daemon does not answer; trying again.');
    if (events.readyState !== EventSource.CLOSED) return;
    setTimeout(listen, RETRY);
    get('api/drops').catch(({ message }: Error) => trouble(message));
  };
}

listen();
