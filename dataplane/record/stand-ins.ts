/** What stands in front of a port and an uplink while somebody listens: each hands on what it is given, and tells the recorder. */
import type { Batch } from '../batch.ts';
import type { Port } from '../port.ts';
import type { Uplink } from '../uplink/uplink.ts';

/** What a port tells: packets with their virtio headers, and the result of the call. */
export interface PortWitness {
  /** After every read, whether it brought a packet (`size` > 0) or not. */
  arrived(at: number, size: number): void;
  wrote(at: number, length: number, result: number): void;
  wroteIovecs(iovecs: number, count: number, result: number): void;
}

export class RecordingPort implements Port {
  readonly port: Port;
  readonly fd: number;
  readonly #witness: PortWitness;

  constructor(port: Port, witness: PortWitness) {
    this.port = port;
    this.fd = port.fd;
    this.#witness = witness;
  }

  read(at: number, capacity: number): number {
    const size = this.port.read(at, capacity);
    this.#witness.arrived(at, size);
    return size;
  }

  write(at: number, length: number): number {
    const result = this.port.write(at, length);
    this.#witness.wrote(at, length, result);
    return result;
  }

  writev(iovecs: number, count: number): number {
    const result = this.port.writev(iovecs, count);
    this.#witness.wroteIovecs(iovecs, count, result);
    return result;
  }

  errno(): number {
    return this.port.errno();
  }
}

/** Tells which frames an uplink takes to which next hops. */
export class RecordingUplink implements Uplink {
  readonly uplink: Uplink;
  readonly #onSend: (batch: Batch, index: number, nextHop: number) => void;

  constructor(uplink: Uplink, onSend: (batch: Batch, index: number, nextHop: number) => void) {
    this.uplink = uplink;
    this.#onSend = onSend;
  }

  get fds(): readonly number[] {
    return this.uplink.fds;
  }

  receive(batch: Batch): number {
    return this.uplink.receive(batch);
  }

  entropy(hash: number): number {
    return this.uplink.entropy(hash);
  }

  send(batch: Batch, index: number, nextHop: number, entropy: number, scope: number, mayFragment: boolean): number {
    const refused = this.uplink.send(batch, index, nextHop, entropy, scope, mayFragment);
    if (refused === 0) this.#onSend(batch, index, nextHop);
    return refused;
  }

  flush(): void {
    this.uplink.flush();
  }

  close(): void {
    this.uplink.close();
  }
}
