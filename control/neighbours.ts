import type { Host, Neighbour } from './host.ts';
import type { CommandFailed } from './iproute.ts';
import type { PathNeighbour } from './path.ts';

/**
 * Keeps the neighbours that paths need known to the kernel. From Linux 5.16 on the kernel does it by itself for entries that are
 * `managed`: it resolves them at once and probes them again before they expire. Ours carry a protocol number, so that
 * they are recognised after kill -9 too. Entries that an administrator or another control plane has set are never touched.
 */

/** Ours, in `ip neigh show proto 118`; free in /etc/iproute2/rt_protos. */
const PROTOCOL = '118';
const OURS = `managed protocol ${PROTOCOL}`;

export class NeighbourKeeper {
  readonly #host: Host;
  #managed: boolean;
  /** Those that were made managed in the last round: seen unmanaged in the next, the kernel does not know the word. */
  #asked = new Map<string, PathNeighbour>();

  /** `managed` false: probe them ourselves (kernels before 5.16 are found out in any case). */
  constructor(host: Host, managed = true) {
    this.#host = host;
    this.#managed = managed;
  }

  /** False: `keep` has to be called every few seconds, for its probes. */
  get managed(): boolean {
    return this.#managed;
  }

  /**
   * Asks for the neighbours that are needed, and releases those of ours that no longer are. `known` are the host's, just
   * read. Returns an error for each that could not be asked for, by neighbourKey.
   */
  async keep(
    needed: ReadonlyMap<string, PathNeighbour>,
    known: ReadonlyMap<string, Neighbour>,
  ): Promise<Map<string, CommandFailed>> {
    for (const key of this.#asked.keys()) {
      const entry = known.get(key);
      if (entry && !entry.managed && isDynamic(entry) && entry.protocol === PROTOCOL) this.#managed = false;
    }
    const keys: string[] = [];
    const lines: string[] = [];
    const asked = new Map<string, PathNeighbour>();
    for (const [key, { address, dev }] of needed) {
      const verb = this.#managed ? OURS : 'use';
      const entry = known.get(key);
      if (entry && !this.#wants(entry)) continue;
      // `add` fails when somebody else was faster. An entry that is there can only be replaced: one that turns permanent
      // between our reading and writing, about a millisecond, is lost.
      lines.push(`neigh ${entry ? 'replace' : 'add'} ${address} dev ${dev} ${verb}`);
      keys.push(key);
      if (this.#managed) asked.set(key, { address, dev });
    }
    this.#asked = asked;
    const released = [...known].filter(([key, entry]) => isOurs(entry) && !needed.has(key));
    lines.push(...released.map(([, entry]) => release(entry)));
    const errors = await this.#host.iproute.apply(lines);
    const failed = new Map<string, CommandFailed>();
    for (const [line, error] of errors) {
      if (line < keys.length && !error.reason.includes('File exists')) failed.set(keys[line], error);
      // iproute2 before 5.16: "Error: argument "managed" is wrong".
      if (error.reason.includes('"managed"')) this.#managed = false;
    }
    return failed;
  }

  #wants(entry: Neighbour): boolean {
    if (!isDynamic(entry)) return false;
    if (this.#managed) return !entry.managed;
    return entry.state === 'STALE' || entry.state === 'FAILED' || entry.state === 'NONE';
  }
}

/** Releases all neighbours that uvxlan keeps in this namespace, also those of a daemon that was killed. */
export async function releaseNeighbours(host: Host): Promise<void> {
  const ours = (await host.neighbours()).filter(isOurs);
  await host.iproute.apply(ours.map(release));
}

/** True for what the kernel found out itself, and may be asked to find out again. */
function isDynamic({ state, externallyLearned }: Neighbour): boolean {
  return state !== 'PERMANENT' && state !== 'NOARP' && !externallyLearned;
}

/** An entry that somebody else has taken over keeps our protocol number, but is no longer managed. */
function isOurs(entry: Neighbour): boolean {
  return entry.managed && entry.protocol === PROTOCOL && isDynamic(entry);
}

/** What is known stays, unverified, for the host's own traffic. */
function release({ address, dev, mac }: Neighbour): string {
  return mac === undefined
    ? `neigh del ${address} dev ${dev}`
    : `neigh change ${address} lladdr ${mac} dev ${dev} nud stale`;
}
