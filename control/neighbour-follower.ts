/** Keeps the devices' neighbours up with the host: reads them when the host has changed, for devices that answer with them. */
import type { VxlanDevice } from './device.ts';
import type { OverlayNeighbours } from './overlay-neighbours.ts';

/** Milliseconds that it rests after a look: a host's neighbours change all the time. */
const REST = 200;
/** All is read again so often, in milliseconds: an event may have been missed, and none is heard of a TAP in another namespace. */
const RESYNC = 10_000;

export class NeighbourFollower {
  readonly #neighbours: OverlayNeighbours;
  readonly #devices: () => Iterable<VxlanDevice>;
  readonly #warn: (message: string) => void;
  #wanted = false;
  #running = false;
  #stopped = false;
  #timer: NodeJS.Timeout | undefined;
  #warning = '';

  constructor(neighbours: OverlayNeighbours, devices: () => Iterable<VxlanDevice>, warn: (message: string) => void) {
    this.#neighbours = neighbours;
    this.#devices = devices;
    this.#warn = warn;
  }

  /** The host, or what a device has to know, has changed. */
  changed(): void {
    this.#wanted = true;
    if (!this.#running && !this.#stopped) void this.#run();
  }

  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#timer);
  }

  async #run(): Promise<void> {
    this.#running = true;
    while (this.#wanted && !this.#stopped) {
      this.#wanted = false;
      clearTimeout(this.#timer);
      let answering = 0;
      for (const device of this.#devices()) {
        if (!answersNeighbours(device)) continue;
        answering++;
        try {
          await this.#follow(device);
          this.#warning = '';
        } catch (error) {
          const { message } = error as Error;
          if (message !== this.#warning) this.#warn(`${device.name}: its neighbours could not be read: ${message}`);
          this.#warning = message;
        }
      }
      if (answering > 0 && !this.#stopped) this.#timer = setTimeout(() => this.changed(), RESYNC).unref();
      await new Promise((resolve) => setTimeout(resolve, REST).unref());
    }
    this.#running = false;
  }

  #follow(device: VxlanDevice): Promise<void> {
    return device.atHome(async (host) => {
      const { links, neighbours } = await host.snapshot([]);
      const addresses = await host.addresses();
      const { master } = links.get(device.name) ?? {};
      const bridge = master !== undefined && (await host.link(master))?.kind === 'bridge' ? master : undefined;
      this.#neighbours.follow(device, neighbours.values(), addresses, bridge);
    });
  }
}

function answersNeighbours({ config: { proxy, neigh_suppress, rsc } }: VxlanDevice): boolean {
  return proxy || neigh_suppress || rsc;
}
