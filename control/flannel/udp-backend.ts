/** flannel's udp backend: for kernels and networks where nothing else goes. IPv4 alone, as in flannel, and slow: a system call or two a packet. */

import { Worker } from 'node:worker_threads';
import { EFD_CLOEXEC, EFD_NONBLOCK } from '../../dataplane/pool.ts';
import { UDP_COUNTERS, type UdpTunnelCommand, type UdpTunnelTask } from '../../dataplane/udp-tunnel.ts';
import * as libc from '../../system/libc.ts';
import { openUdpSocket } from '../../system/socket.ts';
import { openTun } from '../../system/tun.ts';
import { parseIpv4 } from '../../wire/address.ts';
import { get32 } from '../../wire/bytes.ts';
import { TAP_ALIAS } from '../device.ts';
import { Host } from '../host.ts';
import type { Log } from '../log.ts';
import { CommandError } from '../protocol.ts';
import type { Backend, Overlay, Wish } from './backend.ts';
import type { PerFamily } from './lease.ts';
import type { NetConf, UdpBackend } from './net-conf.ts';

const DEVICE = 'flannel0';
/** Outer IPv4 and UDP headers. */
const OVERHEAD = 28;

interface Running {
  readonly worker: Worker;
  readonly fds: readonly number[];
  readonly eventfd: number;
  /** What the socket is bound to. */
  readonly local: string;
  readonly ended: Promise<unknown>;
}

export class UdpOverlay implements Backend {
  readonly overlays: PerFamily<Overlay>;
  readonly directRouting = false;
  readonly #conf: UdpBackend;
  readonly #host = new Host();
  readonly #log: Log;
  readonly #counters = new SharedArrayBuffer(UDP_COUNTERS.length * 8);
  #running: Running | undefined;
  /** The peers that the thread was told of last. */
  #told: Wish | undefined;

  constructor({ ipv4 }: NetConf, conf: UdpBackend, log: Log) {
    this.#conf = conf;
    this.#log = log;
    this.overlays = {
      ipv4: ipv4 && { device: DEVICE, network: ipv4.network, spansNetwork: true },
      ipv6: null,
    };
  }

  async keepDevices(wish: Wish): Promise<string[]> {
    const { external, own } = wish;
    const local = external.address.ipv4;
    if (local === null || own.ipv4 === null) throw new Error('the backend udp is for IPv4: the cluster has none');
    const mtu = this.mtu(wish);
    const link = await this.#host.link(DEVICE);
    const made: string[] = [];
    if (!link || this.#running?.local !== local) {
      if (link && link.alias !== TAP_ALIAS) {
        const advice = `if nothing uses it any more, remove it: ip link del ${DEVICE}`;
        throw new CommandError(`${DEVICE}: a device of that name exists that is not uvxlan's; ${advice}`, 'EEXIST');
      }
      await this.stop();
      this.#running = this.#start(local);
      made.push(`device ${DEVICE}`);
    }
    if (!link || link.mtu !== mtu) {
      await this.#host.setLink(DEVICE, { ipv6Address: false, mtu, alias: TAP_ALIAS, up: true });
    }
    return made;
  }

  keepPeers(wish: Wish): string[] {
    if (wish === this.#told || !this.#running) return [];
    this.#told = wish;
    const routes = [...wish.peers.values()].flatMap(({ ipv4 }) => {
      if (!ipv4) return [];
      const [subnet, length] = ipv4.subnet.split('/');
      return [[addressWord(subnet), (-1 << (32 - Number(length))) | 0, addressWord(ipv4.publicIp)]];
    });
    routes.sort(([one], [other]) => (one >>> 0) - (other >>> 0));
    this.#tell(this.#running, { routes: Int32Array.from(routes.flat()) });
    return [];
  }

  mtu({ external }: Wish): number {
    return external.nic.mtu - OVERHEAD;
  }

  /** What became of packets, for the log's last line. */
  counters(): Record<string, number> {
    const values = new Float64Array(this.#counters);
    return Object.fromEntries(UDP_COUNTERS.map((name, i) => [name, values[i]]));
  }

  async stop(): Promise<void> {
    const running = this.#running;
    if (!running) return;
    this.#running = undefined;
    this.#told = undefined;
    this.#tell(running, { stop: true });
    await running.ended;
    for (const fd of running.fds) libc.close(fd);
    const counts = Object.entries(this.counters()).filter(([, count]) => count > 0);
    if (counts.length > 0) this.#log(`${DEVICE}: ${counts.map(([name, count]) => `${name} ${count}`).join(', ')}`);
  }

  #start(local: string): Running {
    const { port } = this.#conf;
    const fds: number[] = [];
    try {
      const socket = openUdpSocket({ address: parseIpv4(local)!, port });
      fds.push(socket);
      const tun = openTun(DEVICE);
      fds.push(tun);
      const eventfd = libc.check(libc.eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), DEVICE, 'eventfd');
      fds.push(eventfd);
      const task: UdpTunnelTask = {
        tun,
        socket,
        eventfd,
        port,
        counters: this.#counters,
      };
      const worker = new Worker(new URL('../../dataplane/udp-tunnel.js', import.meta.url), {
        workerData: { udpTunnel: task },
        resourceLimits: { maxYoungGenerationSizeMb: 4 },
      });
      worker.on('error', (error) => {
        this.#log(`${DEVICE}: its thread failed and is started again: ${error.stack ?? error.message}`, {
          level: 'error',
          device: DEVICE,
        });
        if (this.#running?.worker === worker) this.#abandon();
      });
      return { worker, fds, eventfd, local, ended: new Promise((resolve) => worker.once('exit', resolve)) };
    } catch (error) {
      for (const fd of fds) libc.close(fd);
      throw error;
    }
  }

  /** The next comparison starts another. */
  #abandon(): void {
    for (const fd of this.#running!.fds) libc.close(fd);
    this.#running = undefined;
    this.#told = undefined;
  }

  #tell({ worker, eventfd }: Running, command: UdpTunnelCommand): void {
    worker.postMessage(command);
    const one = Buffer.from(new BigUint64Array([1n]).buffer);
    libc.write(eventfd, libc.addressOf(one), 8);
  }
}

function addressWord(text: string): number {
  return get32(parseIpv4(text)!, 0);
}
