/**
 * What stands in front of a port, an uplink and a coalescer while somebody listens: each hands on what it is given, and tells the recorder.
 */
import type { Batch } from '../batch.ts';
import type { Coalescer } from '../coalesce.ts';
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

/**
 * An uplink that is given one frame of a batch at a time, and flushes at the batch's end only, so that runs stay what they are. Copies of
 * one frame have their headers in the same place: these it flushes between.
 */
export class RecordingUplink implements Uplink {
  readonly uplink: Uplink;
  /** While a batch is under way. */
  isHolding = false;
  readonly #onSend: (batch: Batch, index: number, nextHop: number) => void;
  #owed = false;
  #last = -1;

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
    const at = batch.at[index];
    if (this.#owed && at === this.#last) this.uplink.flush();
    this.#owed = false;
    this.#last = at;
    const refused = this.uplink.send(batch, index, nextHop, entropy, scope, mayFragment);
    if (refused === 0) this.#onSend(batch, index, nextHop);
    return refused;
  }

  flush(): void {
    if (this.isHolding) {
      this.#owed = true;
      return;
    }
    this.#owed = false;
    this.#last = -1;
    this.uplink.flush();
  }

  close(): void {
    this.uplink.close();
  }
}

/** A coalescer that is given one packet of a batch at a time, and flushes at the batch's end only. */
export class RecordingCoalescer implements Pick<Coalescer, 'add' | 'pass' | 'flush' | 'close'> {
  readonly coalescer: Coalescer;
  isHolding = false;

  constructor(coalescer: Coalescer) {
    this.coalescer = coalescer;
  }

  add(frame: number, length: number, maybeUnfinished: boolean): void {
    this.coalescer.add(frame, length, maybeUnfinished);
  }

  pass(
    frame: number,
    length: number,
    gsoType: number,
    gsoSize: number,
    headerLength: number,
    checksumStart: number,
    checksumOffset: number,
  ): void {
    this.coalescer.pass(frame, length, gsoType, gsoSize, headerLength, checksumStart, checksumOffset);
  }

  flush(): void {
    if (!this.isHolding) this.coalescer.flush();
  }

  close(): void {
    this.coalescer.close();
  }
}
