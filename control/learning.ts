/** What the workers report of where packets come from: learns MACs, lets entries age, and keeps the last offenders. */
import {
  REPORT_COUNT,
  REPORT_DEVICE,
  REPORT_LENGTH,
  REPORT_MAC_HIGH,
  REPORT_MAC_LOW,
  REPORT_SOURCE,
  REPORT_STATIC_MAC,
  REPORT_TYPE,
  REPORT_UNKNOWN_VTEP,
  REPORT_WRONG_SUBNET,
  REPORT_WRONG_VTEP,
  reportAddress,
  reportSample,
} from '../dataplane/reports.ts';
import type { FdbWriter } from '../fdb/writer.ts';
import { formatIp, formatMac, macBytes } from '../wire/address.ts';
import type { VxlanDevice } from './device.ts';
import { type Offender, Offenders } from './offenders.ts';

/** The drop of each report that is about one. */
const DROP_OF: Readonly<Record<number, string>> = {
  [REPORT_UNKNOWN_VTEP]: 'rx_unknown_vtep',
  [REPORT_WRONG_VTEP]: 'rx_wrong_vtep',
  [REPORT_WRONG_SUBNET]: 'rx_wrong_subnet',
  [REPORT_STATIC_MAC]: 'rx_static_mac',
};
/** The workers' clock is this coarse, in milliseconds. */
const TICK = 1_000;

export class Learning {
  readonly #writer: FdbWriter;
  readonly #device: (index: number) => VxlanDevice | undefined;
  readonly #onVtep: () => void;
  readonly #offenders = new Offenders();
  readonly #timer: NodeJS.Timeout;
  /** Seconds until entries' age is looked at. */
  #untilAge = 0;

  /** `onVtep`: called when a VTEP was learned that nothing was sent to until now. */
  constructor(writer: FdbWriter, device: (index: number) => VxlanDevice | undefined, onVtep: () => void) {
    this.#writer = writer;
    this.#device = device;
    this.#onVtep = onVtep;
    this.#tick();
    this.#timer = setInterval(() => this.#tick(), TICK).unref();
  }

  /** Takes a report of a worker that is about a packet's source; whether it was one. */
  take(words: Int32Array, record: number): boolean {
    const type = words[record + REPORT_TYPE];
    if (type !== REPORT_SOURCE && DROP_OF[type] === undefined) return false;
    const index = words[record + REPORT_DEVICE];
    const device = this.#device(index);
    if (!device) return true; // removed meanwhile
    const source = reportAddress(words, record);
    const high = words[record + REPORT_MAC_HIGH];
    const low = words[record + REPORT_MAC_LOW];
    if (type === REPORT_SOURCE) this.#learn(device, high, low, source);
    else {
      this.#offenders.note(index, {
        src: formatIp(source),
        mac: formatMac(macBytes(high, low)),
        reason: DROP_OF[type],
        count: words[record + REPORT_COUNT],
        time: Date.now(),
        length: words[record + REPORT_LENGTH],
        sample: Buffer.from(reportSample(words, record)).toString('hex'),
      });
    }
    return true;
  }

  offenders(device: VxlanDevice): Offender[] {
    return this.#offenders.of(device.index);
  }

  forget(device: VxlanDevice): void {
    this.#offenders.forget(device.index);
  }

  /** Another `ageing`, or a shorter one, holds from now on. */
  ageingChanged(): void {
    this.#untilAge = 0;
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  #learn({ index, config, place }: VxlanDevice, high: number, low: number, source: Uint8Array): void {
    if (!config.learning || !isHost(source)) return;
    const { nextHops } = this.#writer;
    const before = nextHops.size;
    const isLinkLocal = source.length === 16 && source[0] === 0xfe && (source[1] & 0xc0) === 0x80;
    const via = isLinkLocal ? (place.nic?.name ?? '') : '';
    this.#writer.learn(index, high, low, formatIp(source), via, performance.now());
    if (nextHops.size > before) this.#onVtep();
  }

  #tick(): void {
    const now = performance.now();
    this.#writer.table.setClock(Math.floor(now / 1000));
    if (--this.#untilAge > 0) return;
    this.#untilAge = this.#writer.age((device) => this.#device(device)?.config.ageing ?? 0, now);
  }
}

/** Whether an address may be a host's: what a VTEP cannot be reached at is not learned. */
function isHost(address: Uint8Array): boolean {
  if (address.length === 4) return address[0] !== 0 && address[0] < 224;
  return address[0] !== 0xff && address.some((byte) => byte !== 0);
}
