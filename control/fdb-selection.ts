/** Which FDB entries `fdb show` prints and `fdb flush` removes, in bridge's words. */
import type { FdbRecord } from '../fdb/records.ts';
import { CommandError } from './protocol.ts';

/** What is absent selects all. Each remote of a MAC is selected by itself. */
export interface FdbSelection {
  dst?: string;
  port?: number;
  vni?: number;
  via?: string;
  nhid?: number;
  /** true: only these, false: only others. */
  permanent?: boolean;
  static?: boolean;
  dynamic?: boolean;
  extern_learn?: boolean;
  router?: boolean;
}

/** Words that stand alone, and with `no` in front for all others. */
export const SELECTION_FLAGS = ['permanent', 'static', 'dynamic', 'extern_learn', 'router'] as const;

/** A device's own port and VNI, which records leave out. */
export interface DeviceDefaults {
  readonly port: number;
  readonly vni: number;
}

export function matcher(selection: FdbSelection, own: DeviceDefaults): (record: FdbRecord) => boolean {
  const { dst, port, vni, via, nhid } = selection;
  const is = (record: FdbRecord, flag: (typeof SELECTION_FLAGS)[number]): boolean => {
    if (flag === 'dynamic') return record.state === '';
    return record.state === flag || record.flags.includes(flag);
  };
  const flags = SELECTION_FLAGS.filter((flag) => selection[flag] !== undefined);
  return (record) =>
    (dst === undefined || record.dst === dst) &&
    (port === undefined || (record.port ?? own.port) === port) &&
    (vni === undefined || (record.vni ?? own.vni) === vni) &&
    (via === undefined || record.viaIf === via) &&
    (nhid === undefined || record.nhid === nhid) &&
    flags.every((flag) => is(record, flag) === selection[flag]);
}

/** What came over the control socket, checked; `validators` are those of an entry's fields. Throws CommandError, WrongValue. */
export function selectionOf(
  given: Readonly<Record<string, unknown>>,
  validators: Readonly<Record<string, (text: string) => unknown>>,
): FdbSelection {
  const selection: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(given)) {
    if (value === null || value === undefined) continue;
    const isFlag = (SELECTION_FLAGS as readonly string[]).includes(key);
    if (isFlag && typeof value === 'boolean') selection[key] = value;
    else if (['dst', 'port', 'vni', 'via', 'nhid'].includes(key)) selection[key] = validators[key](String(value));
    else throw new CommandError(`the argument ${key} is unknown`, 'EINVAL');
  }
  return selection;
}
