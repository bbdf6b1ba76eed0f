/** What the tests of wire formats have in common. */
import assert from 'node:assert/strict';

/** Bytes of hex text; white space is for the reader. */
export function hex(text: string): Uint8Array {
  return Uint8Array.from(Buffer.from(text.replace(/\s/g, ''), 'hex'));
}

/**
 * Lets `write` put `length` bytes at an odd offset into a buffer of 0xa5, and returns them as hex: a byte that was not
 * written shows as a5. Fails when a byte around them has changed.
 */
export function written(length: number, write: (bytes: Uint8Array, at: number) => void): string {
  const margin = 7;
  const bytes = new Uint8Array(length + 2 * margin).fill(0xa5);
  write(bytes, margin);
  const around = [...bytes.subarray(0, margin), ...bytes.subarray(margin + length)];
  assert.deepEqual(around, Array(2 * margin).fill(0xa5), 'bytes around the header');
  return Buffer.from(bytes.subarray(margin, margin + length)).toString('hex');
}

/** Puts `data` at offset `at` of a buffer of 0xa5 that goes on behind it. */
export function placed(data: Uint8Array, at: number): Uint8Array {
  const bytes = new Uint8Array(at + data.length + 64).fill(0xa5);
  bytes.set(data, at);
  return bytes;
}

/**
 * The same bytes such that reading one outside of [at, at + length) throws: proof that a function keeps within a
 * truncated frame.
 */
export function guarded(bytes: Uint8Array, at: number, length: number): Uint8Array {
  return new Proxy(bytes, {
    get(target, key) {
      const index = Number(String(key));
      if (index < at || index >= at + length) throw new RangeError(`read byte ${index - at} of ${length}`);
      return Reflect.get(target, key, target);
    },
  });
}
