// The node agent in a large cluster:  node dist/bench/flannel.js [PEERS]
// In a namespace of its own, with real devices and tables; the state of the cluster comes from memory, so that only the agent is measured:
// from the list of peers to a host that is fully programmed, from one changed peer to its neighbour in the kernel, memory, and the processor
// when nothing happens, with all processes that the agent starts.

import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { Network } from '../cli/lab/network.ts';
import { Agent } from '../control/flannel/agent.ts';
import { FaultLog } from '../control/flannel/faults.ts';
import type { Endpoint, Lease, PerFamily } from '../control/flannel/lease.ts';
import type { NetConf } from '../control/flannel/net-conf.ts';
import type { Source, SourceListener } from '../control/flannel/source.ts';

const PEERS = 5_000;
const CHANGES = 20;
/** Long enough for one of each that is read every now and then, the rarer the longer it takes. */
const IDLE_SECONDS = 300;

const NET_CONF: NetConf = {
  ipv4: { network: '10.224.0.0/11', subnetLen: 24, subnetMin: '10.224.1.0', subnetMax: '10.255.255.0' },
  ipv6: null,
  enableNFTables: false,
  backend: { type: 'vxlan', vni: 1, port: 8472, mtu: null, gbp: false, learning: false, directRouting: false },
};

function lease(node: number, change = 0): Lease {
  const [high, low] = [node >> 8, node & 0xff];
  const hex = (value: number) => value.toString(16).padStart(2, '0');
  const vtepMac = `02:${hex(change)}:00:00:${hex(high)}:${hex(low)}`;
  const share = { subnet: `10.${224 + high}.${low}.0/24`, publicIp: `172.16.${high}.${low || 1}`, vtepMac };
  return { node: `node-${node}`, ipv4: share, ipv6: null };
}

/** A cluster in memory. */
class MemorySource implements Source {
  readonly name = 'memory';
  readonly faults = new FaultLog(() => {}).counts;
  readonly status = { connected: true, problem: null, leaseEnds: null };
  readonly peers: Map<string, Lease>;
  readonly isReady: Promise<void>;
  started = 0;
  #listener!: SourceListener;
  #resolve!: () => void;

  constructor(peers: number) {
    this.peers = new Map(Array.from({ length: peers }, (_, i) => lease(i + 2)).map((each) => [each.node, each]));
    this.isReady = new Promise((resolve) => {
      this.#resolve = resolve;
    });
  }

  async netConf(): Promise<NetConf> {
    return NET_CONF;
  }

  async publicIps(): Promise<PerFamily<string>> {
    return { ipv4: null, ipv6: null };
  }

  async vtepMacs(): Promise<PerFamily<string>> {
    return { ipv4: lease(1).ipv4!.vtepMac, ipv6: null };
  }

  start(own: PerFamily<Endpoint>, listener: SourceListener): void {
    this.#listener = listener;
    this.started = performance.now();
    listener.onOwn({ ...lease(1), ipv4: { ...lease(1).ipv4!, ...own.ipv4! } });
    listener.onPeers(this.peers, new Set(this.peers.keys()));
  }

  change(changed: Lease): void {
    this.peers.set(changed.node, changed);
    this.#listener.onPeers(this.peers, new Set([changed.node]));
  }

  register(): void {}

  ready(): void {
    this.#resolve();
  }

  async stop(): Promise<void> {}
}

/** Clock ticks, 10 ms each, of this process and of its children that have ended: /proc/PID/stat, proc(5). */
function cpuTicks(): number {
  const stat = readFileSync('/proc/self/stat', 'latin1');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return fields.slice(11, 15).reduce((sum, field) => sum + Number(field), 0);
}

async function measure(peers: number, directory: string): Promise<void> {
  const source = new MemorySource(peers);
  const agent = new Agent({
    source,
    interface: { iface: ['eth0'], ifaceRegex: [], ifaceCanReach: '', except: [] },
    publicIp: { ipv4: null, ipv6: null },
    subnetFile: join(directory, 'subnet.env'),
    healthz: { ip: '', port: 0 },
    ...{ ipMasq: true, randomFully: true, forwardRules: true },
    device: {},
    without: [],
    log: () => {},
  });
  await agent.start();
  await source.isReady;
  const programmed = (performance.now() - source.started) / 1000;
  await sleep(3_000); // the first look at all of it, and the ways to the VTEPs

  const monitor = spawn('ip', ['monitor', 'neigh'], { stdio: ['ignore', 'pipe', 'inherit'] });
  const seen = new Map<string, () => void>();
  createInterface(monitor.stdout).on('line', (line) => seen.get(line.match(/lladdr (\S+) PERMANENT/)?.[1] ?? '')?.());
  await sleep(500);
  const times: number[] = [];
  for (let change = 1; change <= CHANGES; change++) {
    const changed = lease(2 + change, change);
    const done = new Promise<void>((resolve) => seen.set(changed.ipv4!.vtepMac!, resolve));
    const from = performance.now();
    source.change(changed);
    await done;
    times.push(performance.now() - from);
    await sleep(300);
  }
  monitor.kill();
  times.sort((one, other) => one - other);

  await sleep(3_000);
  const before = cpuTicks();
  await sleep(IDLE_SECONDS * 1000);
  const idle = (cpuTicks() - before) / IDLE_SECONDS;
  console.log(
    [
      `${peers} peers`,
      `programmed in                ${programmed.toFixed(2)} s from the list, the device included`,
      `one changed peer             ${times[CHANGES >> 1]!.toFixed(0)} ms median, ${times.at(-1)!.toFixed(0)} ms at most of ${CHANGES}`,
      `memory                       ${Math.round(process.memoryUsage.rss() / 1e6)} MB resident`,
      `idle                         ${idle.toFixed(1)} % of a core over ${IDLE_SECONDS} s, all its processes together`,
    ].join('\n'),
  );
  await agent.stop();
}

async function main(args: string[]): Promise<void> {
  if (args[0] === '--inside') return measure(Number(args[1]), args[2]!);
  const network = Network.build(
    { after() {} },
    {
      hosts: { node: {}, gateway: {} },
      links: [['node eth0 198.51.100.1/24', 'gateway eth0 198.51.100.254/24']],
      routes: { node: ['default via 198.51.100.254'] },
    },
  );
  const node = network.host('node');
  const file = fileURLToPath(import.meta.url);
  const { stdout } = await node.run([process.execPath, file, '--inside', args[0] ?? `${PEERS}`, network.directory], {
    timeout: 600_000,
  });
  console.log(stdout.trimEnd());
  network.remove();
}

await main(process.argv.slice(2));
process.exit();
