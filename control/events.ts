/** What happens while the daemon runs, for whoever listens: `uvxlan monitor` and other clients of the control socket. */

/** What a client may listen to. */
export const EVENT_GROUPS = ['fdb', 'miss', 'mdb', 'peer', 'drop'] as const;
export type EventGroup = (typeof EVENT_GROUPS)[number];

/** One event as clients get it. Whatever else belongs to it has the key names of iproute2's JSON. */
export interface DaemonEvent {
  readonly group: EventGroup;
  /** What happened: a word. */
  readonly event: string;
  /** Milliseconds since 1970. */
  readonly time: number;
  readonly ifname: string;
  readonly [key: string]: unknown;
}

export type EventListener = (event: DaemonEvent) => void;

export class Events {
  readonly #listeners = new Map<EventListener, readonly EventGroup[]>();

  /** Calls the listener for each event of the groups; returns what ends that. */
  listen(groups: readonly EventGroup[], listener: EventListener): () => void {
    this.#listeners.set(listener, groups);
    return () => this.#listeners.delete(listener);
  }

  /** Whether anybody listens: an event that nobody hears need not be made. */
  has(group: EventGroup): boolean {
    for (const groups of this.#listeners.values()) if (groups.includes(group)) return true;
    return false;
  }

  emit(group: EventGroup, event: string, ifname: string, fields: Readonly<Record<string, unknown>>): void {
    if (!this.has(group)) return;
    const record: DaemonEvent = { group, event, time: Date.now(), ifname, ...fields };
    for (const [listener, groups] of this.#listeners) if (groups.includes(group)) listener(record);
  }
}
