import { overlaps, parsePrefix } from '../../wire/prefix.ts';
import type { FaultLog } from './faults.ts';
import { FAMILIES, type Family, type Lease, type Share, sameLease } from './lease.ts';
import type { Fault, Reading } from './reading.ts';
import { SubnetIndex } from './subnet-index.ts';

/**
 * The leases of all other nodes that are right and agree with each other. What is wrong leaves the node's last good lease as it was. A node that
 * claims what another one has waits until that one lets go of it.
 */
export class Peers {
  readonly #faults: FaultLog;
  readonly #leases = new Map<string, Lease>();
  readonly #waiting = new Map<string, Lease>();
  #changed = new Set<string>();
  readonly #subnets = { ipv4: new SubnetIndex(), ipv6: new SubnetIndex() };
  /** By MAC address: whose, and at which public IP. */
  readonly #vteps = { ipv4: new Map<string, Vtep>(), ipv6: new Map<string, Vtep>() };
  #own: Lease | undefined;

  constructor(faults: FaultLog) {
    this.#faults = faults;
  }

  get leases(): ReadonlyMap<string, Lease> {
    return this.#leases;
  }

  /** Whose leases came, went or changed since this was last asked. */
  takeChanged(): ReadonlySet<string> {
    const changed = this.#changed;
    this.#changed = new Set();
    return changed;
  }

  /** This node's own lease: no other node may claim what is in it, and the node itself is no peer. */
  setOwn(own: Lease): void {
    this.#own = own;
    this.#waiting.delete(own.node);
    if (this.#leases.has(own.node)) this.#drop(own.node);
    for (const lease of [...this.#leases.values()]) {
      const fault = this.#conflictWithOwn(lease);
      if (fault === undefined) continue;
      this.#drop(lease.node);
      this.#waiting.set(lease.node, lease);
      this.#refuse(lease.node, fault);
    }
    this.#retry();
  }

  update(node: string, reading: Reading): void {
    if (node === this.#own?.node) return;
    if ('kind' in reading) this.#refuse(node, reading);
    else this.#take(reading.lease);
    this.#retry();
  }

  remove(node: string): void {
    this.#faults.clear(about(node));
    this.#waiting.delete(node);
    if (!this.#leases.has(node)) return;
    this.#drop(node);
    this.#retry();
  }

  /** Everything that there is: whoever is not in it is gone. */
  replace(readings: ReadonlyMap<string, Reading>): void {
    for (const node of [...this.#leases.keys(), ...this.#waiting.keys()]) {
      if (!readings.has(node)) this.remove(node);
    }
    for (const [node, reading] of readings) this.update(node, reading);
  }

  #take(lease: Lease): void {
    const { node } = lease;
    const known = this.#leases.get(node);
    if (known !== undefined && sameLease(known, lease)) {
      this.#waiting.delete(node);
      this.#faults.clear(about(node));
      return;
    }
    const fault = this.#conflict(lease);
    if (fault !== undefined) {
      this.#waiting.set(node, lease);
      this.#refuse(node, fault);
      return;
    }
    if (known !== undefined) this.#drop(node);
    this.#waiting.delete(node);
    this.#faults.clear(about(node), `node ${node} is right again`);
    this.#leases.set(node, lease);
    this.#changed.add(node);
    for (const [family, share] of shares(lease)) {
      this.#subnets[family].add(parsePrefix(share.subnet)!, node);
      if (share.vtepMac !== null) this.#takeVtep(family, share.vtepMac, share.publicIp, node);
    }
  }

  #takeVtep(family: Family, mac: string, publicIp: string, node: string): void {
    const vtep = this.#vteps[family].get(mac);
    if (vtep) vtep.nodes.add(node);
    else this.#vteps[family].set(mac, { publicIp, nodes: new Set([node]) });
  }

  #drop(node: string): void {
    const lease = this.#leases.get(node)!;
    this.#leases.delete(node);
    this.#changed.add(node);
    for (const [family, share] of shares(lease)) {
      this.#subnets[family].delete(parsePrefix(share.subnet)!);
      const vtep = share.vtepMac === null ? undefined : this.#vteps[family].get(share.vtepMac);
      vtep?.nodes.delete(node);
      if (vtep?.nodes.size === 0) this.#vteps[family].delete(share.vtepMac!);
    }
  }

  /** Somebody may have let go of what these wait for. */
  #retry(): void {
    for (let progress = this.#waiting.size > 0; progress; ) {
      progress = false;
      for (const lease of [...this.#waiting.values()]) {
        if (this.#conflict(lease) !== undefined) continue;
        this.#take(lease);
        progress = true;
      }
    }
  }

  #conflict(lease: Lease): Fault | undefined {
    const fault = this.#conflictWithOwn(lease);
    if (fault !== undefined) return fault;
    for (const [family, { subnet, vtepMac, publicIp }] of shares(lease)) {
      const holder = this.#subnets[family].overlapping(parsePrefix(subnet)!, lease.node);
      if (holder !== undefined)
        return { kind: 'subnet_taken', message: `claims the subnet ${subnet}, which node ${holder} has` };
      const vtep = vtepMac === null ? undefined : this.#vteps[family].get(vtepMac);
      const other = vtep && vtep.publicIp !== publicIp && [...vtep.nodes].find((node) => node !== lease.node);
      if (other) return { kind: 'mac_taken', message: `claims the MAC address ${vtepMac}, which node ${other} has` };
    }
    return undefined;
  }

  #conflictWithOwn(lease: Lease): Fault | undefined {
    for (const [family, { subnet, vtepMac, publicIp }] of shares(lease)) {
      const own = this.#own?.[family];
      if (!own) continue;
      let taken: string | undefined;
      if (overlaps(parsePrefix(own.subnet)!, parsePrefix(subnet)!)) taken = `subnet ${subnet}`;
      else if (vtepMac !== null && vtepMac === own.vtepMac) taken = `MAC address ${vtepMac}`;
      else if (publicIp === own.publicIp) taken = `public IP ${publicIp}`;
      if (taken) return { kind: 'own_taken', message: `claims the ${taken}, which is this node's own` };
    }
    return undefined;
  }

  #refuse(node: string, { kind, message }: Fault): void {
    const outcome = this.#leases.has(node) ? 'its last good lease stays' : 'it is left out';
    this.#faults.note(kind, about(node), `node ${node} ${message}: ${outcome}`);
  }
}

interface Vtep {
  readonly publicIp: string;
  readonly nodes: Set<string>;
}

function about(node: string): string {
  return `node ${node}`;
}

function shares(lease: Lease): [Family, Share][] {
  return FAMILIES.flatMap((family) => (lease[family] ? [[family, lease[family]] as [Family, Share]] : []));
}
