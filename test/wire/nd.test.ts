import assert from 'node:assert/strict';
import test from 'node:test';
import {
  ND_ADVERTISEMENT,
  ND_FRAME,
  ND_SOLICITATION,
  ndType,
  solicitorMac,
  writeAdvertisement,
} from '../../wire/nd.ts';
import { guarded, hex, placed } from './canvas.ts';

/** fd00::1 at 02:00:00:00:00:01 asks for fd00::2, with its MAC in an option. */
const HEADERS = `3333ff000002 020000000001 86dd
  6e012345 0020 3a ff  fd000000000000000000000000000001  ff0200000000000000000001ff000002`;
const MESSAGE = '8700 0000 00000000 fd000000000000000000000000000002';
const OPTION = '01 01 0200000000aa';
const SOLICITATION = hex(HEADERS + MESSAGE + OPTION);
const IP = 14;

test('knows its messages, whole', () => {
  for (let length = 0; length <= SOLICITATION.length - IP; length++) {
    const bytes = guarded(placed(SOLICITATION.subarray(0, IP + length), 0), IP, length);
    assert.equal(ndType(bytes, IP, length), length < 64 ? 0 : ND_SOLICITATION);
  }
  for (const [offset, value, type] of [
    [54, 136, ND_ADVERTISEMENT],
    [54, 134, 0],
    [55, 1, 0],
    [20, 17, 0],
  ]) {
    const bytes = SOLICITATION.slice();
    bytes[offset] = value;
    assert.equal(ndType(bytes, IP, bytes.length - IP), type);
  }
});

test('finds the MAC of whoever asks: in its option, else in the Ethernet header', () => {
  const of = (options: string): number => {
    const frame = hex(HEADERS + MESSAGE + options);
    return solicitorMac(guarded(placed(frame, 5), 5, frame.length), 5, frame.length) - 5;
  };
  const end = SOLICITATION.length - 8;
  assert.equal(of(OPTION), end + 2);
  assert.equal(of(''), 6);
  assert.equal(of(`0e01 0000 0000 0000 ${OPTION}`), end + 10);
  assert.equal(of('0e01 0000 0000 0000'), 6);
  assert.equal(of('0e'), 6, 'half an option is none');
});

test('discards options whose length is zero or leads beyond the frame', () => {
  for (const options of ['0100 0200000000aa', '0e00', '0102 0200000000aa', '01 01 020000', '0101']) {
    const frame = hex(HEADERS + MESSAGE + options);
    assert.equal(solicitorMac(guarded(placed(frame, 5), 5, frame.length), 5, frame.length), -1);
  }
});

test('answers whoever asks', () => {
  for (const [isRouter, flags, checksum] of [
    [false, '60', '1c9a'],
    [true, 'e0', '9c99'],
  ] as const) {
    const bytes = placed(SOLICITATION, 300);
    writeAdvertisement(bytes, 9, 300, 300 + 80, 0x0200, 0x0000_0002, isRouter);
    assert.equal(
      Buffer.from(bytes.subarray(9, 9 + ND_FRAME)).toString('hex'),
      Buffer.from(
        hex(`0200000000aa 020000000002 86dd
             6e000000 0020 3a ff  fd000000000000000000000000000002  fd000000000000000000000000000001
             8800 ${checksum} ${flags}000000 fd000000000000000000000000000002 0201 020000000002`),
      ).toString('hex'),
    );
    assert.deepEqual([bytes[8], bytes[9 + ND_FRAME]], [0xa5, 0xa5]);
  }
});
