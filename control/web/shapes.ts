/** What the page asks the server for, as JSON. Imports nothing, since the browser's code is compiled with it. */

/** GET api/live: server-sent events, one a second. */
export interface Live {
  /** Milliseconds since 1970. */
  readonly time: number;
  readonly nodes: readonly NodeState[];
}

export interface NodeState {
  readonly name: string;
  /** Why nothing else is known of it just now. */
  readonly error?: string;
  readonly version?: string;
  readonly devices: readonly DeviceState[];
  readonly uplinks: readonly UplinkState[];
  /** Since they run: seconds on a CPU, seconds of waiting for one, and how often each went to sleep. */
  readonly threads: readonly {
    readonly name: string;
    readonly cpu: number;
    readonly wait: number;
    readonly sleeps: number;
  }[];
  /** Drops of which there is a sample: GET api/sample?node= &dev= &reason= has it, as a PacketList of one. */
  readonly samples: readonly { readonly dev: string | null; readonly reason: string; readonly time: number }[];
}

export interface DeviceState {
  readonly name: string;
  readonly vni: number;
  readonly mac: string;
  readonly mtu: number;
  readonly local: string;
  readonly nic: string;
  readonly port: number;
  readonly uplink: string;
  readonly reason: string;
  readonly workers: number;
  readonly entries: number;
  readonly offload: string;
  readonly tx: Counts;
  readonly rx: Counts;
  /** How many VTEPs there are, and some of them: those that cannot be reached, then the busiest. */
  readonly peers: { readonly total: number; readonly rows: readonly PeerState[] };
  /** VTEPs that cannot be reached, and why. */
  readonly unresolved: readonly { readonly dst: string; readonly reason: string }[];
}

/** A VTEP and what the workers carry to it and from it, a second, by samples. */
export interface PeerState extends PeerRow {
  readonly tx: Rate;
  readonly rx: Rate;
}

export interface Rate {
  readonly packets: number;
  readonly bytes: number;
}

export interface UplinkState {
  readonly name: string;
  readonly rx: Counts;
}

export interface Counts {
  readonly packets: number;
  readonly bytes: number;
  /** Of `packets`, those that the kernel has carried by itself. */
  readonly offloaded: number;
  /** By reason, those that are not zero. */
  readonly drops: Readonly<Record<string, number>>;
}

/** GET api/drops: what each reason means. */
export interface DropText {
  readonly name: string;
  readonly meaning: string;
  readonly advice: string;
}

/** GET api/fdb, api/neighbours, api/peers: ?node= &q= &offset= */
export interface Page<Row> {
  /** Rows that match. */
  readonly total: number;
  readonly offset: number;
  readonly rows: readonly Row[];
}

export interface FdbRow {
  readonly mac: string;
  readonly dev: string;
  readonly dst: string;
  readonly state: string;
}

/** GET api/history?node= &dev= &mac= : the last changes of a MAC, also of one that is gone. */
export interface MacHistory {
  /** All of them since the MAC is followed. */
  readonly changes: number;
  /** The last ones, the newest first. */
  readonly history: readonly MacChange[];
}

export interface MacChange {
  /** Milliseconds since 1970. */
  readonly time: number;
  /** 'learned', 'moved', 'aged', 'added', 'changed', 'deleted'. */
  readonly event: string;
  /** The VTEP from then on, or that the entry had when it went; absent where a nexthop group, `nhid`, stands in its place. */
  readonly dst?: string;
  readonly nhid?: number;
  /** Where they are not the device's own. */
  readonly port?: number;
  readonly vni?: number;
  /** The VTEP until then. */
  readonly from?: string;
}

export interface NeighbourRow {
  readonly address: string;
  readonly dev: string;
  readonly mac: string;
  readonly state: string;
}

export interface PeerRow {
  readonly address: string;
  readonly dev: string;
  readonly macs: number;
  /** Why it cannot be reached; '' when it can. */
  readonly reason: string;
}

/**
 * GET api/packets?node= &dev= &filter= : packets of the next seconds, inner frames and outer packets.
 * POST api/open?filter= : those of a capture, which is the body (application/octet-stream, at most LARGEST_CAPTURE bytes).
 */
export interface PacketList {
  readonly packets: readonly PacketShape[];
  /** Of a capture: why there are no more, '' when these are all. */
  readonly note?: string;
}

/** Bytes of a capture that the page opens; the page sends the beginning of a longer one. */
export const LARGEST_CAPTURE = 16 * 1024 * 1024;

export interface PacketShape {
  /** '13:00:00.123456'. */
  readonly time: string;
  /** Name of the device or NIC. */
  readonly interface: string;
  readonly direction: 'in' | 'out' | '';
  /** '10.244.1.2 > 10.244.2.2 ICMP'. */
  readonly summary: string;
  /** As it was sent, in bytes; `hex` may have fewer. */
  readonly length: number;
  readonly hex: string;
  /** Where it went by which entry, why it was dropped, what is special about it. */
  readonly comments: readonly string[];
  readonly layers: readonly LayerShape[];
  /** Where taking it apart ended early, and why. */
  readonly fault?: { readonly offset: number; readonly message: string } | undefined;
}

export interface LayerShape {
  /** 'outer IPv4'. */
  readonly title: string;
  /** VXLAN headers in front of it. */
  readonly depth: number;
  readonly offset: number;
  readonly length: number;
  readonly reference: string;
  readonly fields: readonly FieldShape[];
}

export interface FieldShape {
  readonly name: string;
  readonly offset: number;
  /** First bit within the byte, 0 the most significant, and how many. */
  readonly bit: number;
  readonly bits: number;
  readonly value: string;
  readonly meaning: string;
  readonly problem: string;
  readonly reference: string;
  readonly origin: string;
}
