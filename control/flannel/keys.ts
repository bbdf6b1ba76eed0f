import { formatIp, formatMac, parseIp, parseMac } from '../../wire/address.ts';
import { formatPrefix, parsePrefix } from '../../wire/prefix.ts';
import { WrongValue } from '../fields.ts';
import { nearest } from '../nearest.ts';
import { UsageError } from '../words.ts';

/** Keys and list indices from the top of a document. */
export type KeyPath = readonly (string | number)[];

export interface Problem {
  readonly path: KeyPath;
  /** Continues a sentence that begins with the path. */
  readonly message: string;
}

/** `nodes[1].subnet` */
export function formatPath(path: KeyPath): string {
  return path.map((part, i) => (typeof part === 'number' ? `[${part}]` : i === 0 ? part : `.${part}`)).join('');
}

/**
 * Reads the keys of one map of parsed JSON or YAML, upper or lower case as in Go's encoding/json. Everything that is wrong is
 * collected, and what is wrong reads as undefined.
 */
export class Keys {
  readonly #values = new Map<string, [string, unknown]>();
  readonly #path: KeyPath;
  readonly #problems: Problem[];

  constructor(value: unknown, path: KeyPath, problems: Problem[]) {
    this.#path = path;
    this.#problems = problems;
    if (isMap(value)) {
      for (const [key, item] of Object.entries(value)) this.#values.set(key.toLowerCase(), [key, item]);
    } else {
      this.#problems.push({ path, message: 'is not a map' });
    }
  }

  /** Keys that are not known, with a suggestion where one is close. */
  unknown(names: readonly string[]): Problem[] {
    const known = names.map((key) => key.toLowerCase());
    return [...this.#values]
      .filter(([folded]) => !known.includes(folded))
      .map(([folded, [key]]) => {
        const close = nearest(folded, known);
        const suggestion = close && `, did you mean ${names[known.indexOf(close)]}?`;
        return { path: [...this.#path, key], message: `unknown key${suggestion ?? ''}` };
      });
  }

  has(key: string): boolean {
    return (this.#value(key) ?? null) !== null;
  }

  /** null, as Go takes it, is as good as not there. */
  take<T>(key: string, read: (value: unknown) => T): T | undefined {
    if (!this.has(key)) return undefined;
    try {
      return read(this.#value(key));
    } catch (error) {
      if (!(error instanceof WrongValue)) throw error;
      this.problem(key, error.message);
      return undefined;
    }
  }

  problem(key: string, message: string): void {
    this.#problems.push({ path: this.pathOf(key), message });
  }

  pathOf(key: string): KeyPath {
    return [...this.#path, this.#values.get(key.toLowerCase())?.[0] ?? key];
  }

  /** The map below a key. */
  map(key: string): Keys {
    return new Keys(this.#value(key), this.pathOf(key), this.#problems);
  }

  /** The maps of a list below a key, each with its path. */
  *list(key: string): Generator<[KeyPath, Keys]> {
    const value = this.has(key) ? this.#value(key) : [];
    if (!Array.isArray(value)) this.problem(key, 'is not a list');
    for (const [index, item] of Array.isArray(value) ? value.entries() : []) {
      const path = [...this.pathOf(key), index];
      const keys = new Keys(item, path, this.#problems);
      if (isMap(item)) yield [path, keys];
    }
  }

  #value(key: string): unknown {
    return this.#values.get(key.toLowerCase())?.[1];
  }
}

/** A document with everything that is wrong in it, one line each. */
export class DocumentError extends UsageError {
  constructor(lines: readonly string[]) {
    super(lines.join('\n'));
  }
}

export function isMap(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

export function string(value: unknown): string {
  if (typeof value !== 'string' || value === '') throw wrong(value, 'is not a text');
  return value;
}

export function boolean(value: unknown): boolean {
  if (typeof value !== 'boolean') throw wrong(value, 'is neither true nor false');
  return value;
}

export function integer(low: number, high: number): (value: unknown) => number {
  return (value) => {
    if (typeof value !== 'number' || !Number.isInteger(value)) throw wrong(value, `is not a number ${low}..${high}`);
    if (value < low || value > high) throw wrong(value, `is out of range ${low}..${high}`);
    return value;
  };
}

/** Canonical text of an address of that IP version. */
export function addressOf(family: 4 | 6): (value: unknown) => string {
  return (value) => {
    const bytes = typeof value === 'string' ? parseIp(value) : undefined;
    if (bytes?.length !== (family === 4 ? 4 : 16)) throw wrong(value, `is not an IPv${family} address`);
    return formatIp(bytes);
  };
}

/** The address of a host: neither multicast, nor unspecified, nor this machine's own loopback. */
export function hostAddressOf(family: 4 | 6): (value: unknown) => string {
  return (value) => {
    const text = addressOf(family)(value);
    const bytes = parseIp(text)!;
    const isHost = family === 4 ? bytes[0] > 0 && bytes[0] < 224 && bytes[0] !== 127 : bytes[0] !== 0xff;
    if (!isHost || text === '::' || text === '::1') throw wrong(value, 'is not the unicast address of a host');
    return text;
  };
}

/** Canonical text of a prefix of that IP version, host bits cleared. */
export function prefixOfFamily(family: 4 | 6): (value: unknown) => string {
  return (value) => {
    const prefix = typeof value === 'string' ? parsePrefix(value) : undefined;
    if (prefix?.family !== family) {
      throw wrong(value, `is not an IPv${family} prefix such as ${family === 4 ? '10.244.0.0/16' : 'fd00:10::/48'}`);
    }
    return formatPrefix(prefix);
  };
}

export function unicastMac(value: unknown): string {
  const bytes = typeof value === 'string' ? parseMac(value) : undefined;
  if (bytes === undefined || bytes[0] & 1 || bytes.every((byte) => byte === 0)) {
    throw wrong(value, 'is not a unicast MAC address such as 02:00:00:00:00:01');
  }
  return formatMac(bytes);
}

function wrong(value: unknown, reason: string): WrongValue {
  return new WrongValue(JSON.stringify(value) ?? String(value), reason);
}
