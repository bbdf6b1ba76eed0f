import { readFileSync } from 'node:fs';
import { isAlias, isMap, isScalar, isSeq, LineCounter, type Node, type Pair, parseDocument } from 'yaml';
import { familyOf } from '../wire/address.ts';
import { DEVICE_FIELDS, type DeviceConfig, FDB_FIELDS, type FdbEntry, WrongValue } from './fields.ts';
import { nearest } from './nearest.ts';
import {
  completeDevice,
  deviceProblems,
  isLaterWord,
  otherFamily,
  PORT_NOTE,
  UsageError,
  wantsPortNote,
} from './words.ts';

/** Every mistake of a configuration file, one line each: `FILE:LINE:COLUMN: KEY: what is wrong`. */
export class ConfigError extends UsageError {
  readonly problems: readonly string[];

  constructor(problems: readonly string[]) {
    super(problems.join('\n'));
    this.problems = problems;
  }
}

/** What was read of a map, and the nodes of its keys: where a mistake is pointed at. */
interface Read<T> {
  fields: T;
  nodes: Map<string, Node>;
}

/** Nexthop groups are made while the daemon runs. */
const ENTRY_KEYS = Object.keys(FDB_FIELDS).filter((key) => key !== 'nhid');
const DEVICE_KEYS = [...Object.keys(DEVICE_FIELDS), 'fdb'];

/**
 * The devices of a YAML configuration; its keys are the command line's words:
 *
 *     devices:
 *       - name: flannel.1
 *         id: 1
 *         local: 192.0.2.1
 *         srcport: [49152, 65535]
 *         fdb:
 *           - { mac: "00:00:00:00:00:00", dst: 192.0.2.2 }
 *
 * Throws ConfigError with all mistakes at once. `file` is only for the messages.
 */
export function parseConfig(text: string, file: string): { devices: DeviceConfig[]; notes: string[] } {
  return new ConfigReader(text, file).read();
}

/** The devices of a configuration file. Throws ConfigError. */
export function readConfig(file: string): { devices: DeviceConfig[]; notes: string[] } {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (error) {
    throw new ConfigError([`cannot read the configuration ${file} (${(error as NodeJS.ErrnoException).code})`]);
  }
  return parseConfig(text, file);
}

class ConfigReader {
  private readonly lines = new LineCounter();
  private readonly problems: string[] = [];
  private readonly file: string;
  private readonly document;

  constructor(text: string, file: string) {
    this.file = file;
    this.document = parseDocument(text, { lineCounter: this.lines, prettyErrors: false });
  }

  read(): { devices: DeviceConfig[]; notes: string[] } {
    for (const error of this.document.errors) this.problem(error.pos[0], '', error.message);
    // After a mistake of YAML itself the rest is guesswork, except after a duplicate key.
    const readable = this.document.errors.every((error) => error.code === 'DUPLICATE_KEY');
    const devices = readable ? this.readDevices() : [];
    if (this.problems.length > 0) throw new ConfigError(this.problems);
    const withoutPort = devices.filter(({ fields }) => wantsPortNote(fields));
    return {
      devices: devices.map(({ fields }) => completeDevice(fields)),
      notes: withoutPort.length > 0 ? [`${withoutPort.map(({ fields }) => fields.name).join(', ')}: ${PORT_NOTE}`] : [],
    };
  }

  private readDevices(): { fields: Partial<DeviceConfig> }[] {
    const devices: Read<Partial<DeviceConfig>>[] = [];
    for (const [key, node] of this.entries(this.document.contents, '', ['devices'])) {
      for (const [index, item] of this.items(node, key)) devices.push(this.readDevice(item, `${key}[${index}]`));
    }
    if (devices.length === 0 && this.problems.length === 0) {
      this.problem(0, 'devices', 'is missing: a list of at least one device');
    }
    this.findDuplicates(devices);
    return devices;
  }

  private readDevice(node: Node, path: string): Read<Partial<DeviceConfig>> {
    const fields: Partial<DeviceConfig> = {};
    const nodes = new Map<string, Node>();
    const entries: Read<FdbEntry>[] = [];
    // A key that has been given a wrong value is not missing as well.
    const wrong = new Set<string>();
    for (const [key, value] of this.entries(node, path, DEVICE_KEYS)) {
      nodes.set(key, value);
      if (key === 'fdb') {
        for (const [index, item] of this.items(value, `${path}.fdb`))
          entries.push(this.readEntry(item, `${path}.fdb[${index}]`));
        fields.fdb = entries.map((entry) => entry.fields);
      } else if (!this.readField(DEVICE_FIELDS, fields, key, value, path)) {
        wrong.add(key);
      }
    }
    for (const { key, message } of isMap(this.resolve(node)) ? deviceProblems(fields) : []) {
      if (!wrong.has(key)) this.problem(nodes.get(key) ?? node, `${path}.${key}`, message);
    }
    this.checkEntries(entries, fields, path);
    return { fields, nodes };
  }

  private readEntry(node: Node, path: string): Read<FdbEntry> {
    const fields: Partial<FdbEntry> = {};
    const nodes = new Map<string, Node>();
    for (const [key, value] of this.entries(node, path, ENTRY_KEYS)) {
      nodes.set(key, value);
      this.readField(FDB_FIELDS, fields, key, value, path);
    }
    for (const key of isMap(this.resolve(node)) ? ['mac', 'dst'] : []) {
      if (!nodes.has(key)) this.problem(node, `${path}.${key}`, 'is missing');
    }
    return { fields: { mac: '', dst: null, port: null, vni: null, via: null, state: 'permanent', ...fields }, nodes };
  }

  /** What is wrong with the entries of a device taken together; a value that was refused is not there any more. */
  private checkEntries(
    entries: readonly Read<FdbEntry>[],
    { local, remote }: Partial<DeviceConfig>,
    path: string,
  ): void {
    const macs = new Set<string>();
    // Without both the first entry decides which of the host's addresses is taken.
    let [expected, as] = local ? [local, 'local'] : [remote, 'remote'];
    for (const [index, { fields, nodes }] of entries.entries()) {
      const where = `${path}.fdb[${index}]`;
      const { mac, dst } = fields;
      if (dst && !expected) [expected, as] = [dst, `${where}.dst`];
      if (dst && expected && familyOf(dst) !== familyOf(expected)) {
        this.problem(nodes.get('dst'), `${where}.dst`, otherFamily(dst, expected, as));
      }
      if (macs.has(mac)) {
        const rule = 'only 00:00:00:00:00:00 and multicast MAC addresses may have several';
        this.problem(nodes.get('mac'), `${where}.mac`, `${mac} has an entry already: ${rule}`);
      }
      if (mac !== '' && !mayHaveSeveral(mac)) macs.add(mac);
    }
  }

  /** Validates one value by the words' own validator; false after a mistake. */
  private readField(
    validators: Record<string, (text: string) => unknown>,
    fields: object,
    key: string,
    node: Node,
    path: string,
  ): boolean {
    const text = this.textOf(node, `${path}.${key}`, key === 'srcport');
    if (text === undefined) return false;
    try {
      Object.assign(fields, { [key]: validators[key](text) });
      return true;
    } catch (error) {
      if (!(error instanceof WrongValue)) throw error;
      const value = /^[\w.:-]+$/.test(error.text) ? error.text : JSON.stringify(error.text);
      this.problem(node, `${path}.${key}`, `${value} ${error.reason}`);
      return false;
    }
  }

  /** A scalar as it was written; a list of scalars joined by blanks, as words would be. */
  private textOf(given: Node, path: string, isList: boolean): string | undefined {
    const node = this.resolve(given);
    if (isList) {
      const parts = [...this.items(node, path)].map(([index, item]) => this.textOf(item, `${path}[${index}]`, false));
      return isSeq(node) && !parts.includes(undefined) ? parts.join(' ') : undefined;
    }
    if (!isScalar(node)) {
      this.problem(node, path, 'is a list or a map, but one value is expected');
    } else if (node.value === null) {
      this.problem(node, path, 'is empty: give a value, or leave the key out');
    } else {
      return typeof node.value === 'string' ? node.value : (node.source ?? String(node.value));
    }
    return undefined;
  }

  /** Key and value nodes of a map; unknown keys are reported and left out. */
  private *entries(given: Node | null, path: string, known: readonly string[]): Generator<[string, Node]> {
    const node = given && this.resolve(given);
    if (!isMap(node)) {
      const what = path === '' ? 'the configuration ' : '';
      this.problem(node ?? 0, path, `${what}is not a map; ${keysText(known)}`);
      return;
    }
    for (const pair of node.items as Pair<Node, Node | null>[]) {
      const key = String(isScalar(pair.key) ? pair.key.value : pair.key);
      const where = path === '' ? key : `${path}.${key}`;
      if (known.includes(key)) {
        if (pair.value === null) this.problem(pair.key, where, 'is empty: give a value, or leave the key out');
        else yield [key, pair.value];
      } else if (known === DEVICE_KEYS && isLaterWord(key)) {
        this.problem(pair.key, where, 'is not there yet in uvxlan');
      } else {
        const suggestion = nearest(key, known);
        this.problem(pair.key, where, `unknown key, ${suggestion ? `did you mean ${suggestion}?` : keysText(known)}`);
      }
    }
  }

  private *items(given: Node, path: string): Generator<[number, Node]> {
    const node = this.resolve(given);
    if (isSeq(node)) yield* (node.items as Node[]).entries();
    else this.problem(node, path, 'is not a list');
  }

  private resolve(node: Node): Node {
    return (isAlias(node) ? node.resolve(this.document) : undefined) ?? node;
  }

  private findDuplicates(devices: readonly Read<Partial<DeviceConfig>>[]): void {
    devices.forEach(({ fields, nodes }, index) => {
      for (const { fields: other } of devices.slice(0, index)) {
        if (fields.name !== undefined && fields.name === other.name) {
          this.problem(
            nodes.get('name'),
            `devices[${index}].name`,
            `${fields.name} is the name of another device as well`,
          );
        } else if (fields.id !== undefined && fields.id === other.id && samePort(fields, other)) {
          this.problem(
            nodes.get('id'),
            `devices[${index}].id`,
            `${fields.id} is the VNI of ${other.name} on the same port already`,
          );
        }
      }
    });
  }

  private problem(at: Node | number | undefined, path: string, message: string): void {
    const offset = typeof at === 'number' ? at : (at?.range?.[0] ?? 0);
    const { line, col } = this.lines.linePos(offset);
    this.problems.push(
      `${this.file}:${Math.max(line, 1)}:${Math.max(col, 1)}: ${path === '' ? '' : `${path}: `}${message}`,
    );
  }
}

function keysText(known: readonly string[]): string {
  return known === DEVICE_KEYS
    ? 'keys are the words of uvxlan up: see uvxlan up --help'
    : `keys are ${known.join(', ')}`;
}

/** The kernel's rule (vxlan_fdb_update_existing). */
function mayHaveSeveral(mac: string): boolean {
  return mac === '00:00:00:00:00:00' || (Number.parseInt(mac.slice(0, 2), 16) & 1) !== 0;
}

function samePort(one: Partial<DeviceConfig>, other: Partial<DeviceConfig>): boolean {
  return completeDevice(one).dstport === completeDevice(other).dstport;
}
