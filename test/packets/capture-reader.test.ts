import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { CaptureError, type ReadPacket, readCapture } from '../../packets/capture-reader.ts';
import {
  enhancedPacket,
  INBOUND,
  interfaceDescription,
  interfaceStatistics,
  OUTBOUND,
  sectionHeader,
} from '../../packets/pcapng.ts';
import { payload } from '../dataplane/packet.ts';

async function* chunked(bytes: Uint8Array, size: number): AsyncGenerator<Uint8Array, void> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

async function read(bytes: Uint8Array, size = bytes.length || 1): Promise<ReadPacket[]> {
  const packets: ReadPacket[] = [];
  for await (const packet of readCapture(chunked(bytes, size))) {
    packets.push({ ...packet, bytes: Uint8Array.from(packet.bytes) });
  }
  return packets;
}

/** The classic format, in either byte order, with times in micro- or nanoseconds. */
function pcap(little: boolean, nano: boolean, packets: readonly Uint8Array[], linkType = 1): Buffer {
  const words = (...values: number[]): Buffer => {
    const bytes = Buffer.alloc(values.length * 4);
    values.forEach((value, i) => {
      if (little) bytes.writeUInt32LE(value, i * 4);
      else bytes.writeUInt32BE(value, i * 4);
    });
    return bytes;
  };
  const magic = nano ? 0xa1b23c4d : 0xa1b2c3d4;
  const version = little ? 0x00040002 : 0x00020004;
  const header = words(magic, version, 0, 0, 65535, linkType);
  const records = packets.flatMap((bytes, i) => [
    words(1700000000 + i, nano ? 250_000_000 : 250_000, bytes.length, bytes.length + 5),
    bytes,
  ]);
  return Buffer.concat([header, ...records]);
}

const PACKETS = [payload(60), payload(0), payload(1501, 3)];

function pcapng(): Buffer {
  return Buffer.concat([
    sectionHeader('test'),
    interfaceDescription('flannel.1', 'inner'),
    interfaceDescription('eth0', 'outer', { snapLength: 1501, filter: 'icmp' }),
    ...PACKETS.map((bytes, i) =>
      enhancedPacket({
        interface: i % 2,
        time: 1700000000250.125 + i,
        bytes,
        length: bytes.length + i,
        direction: i === 0 ? INBOUND : OUTBOUND,
        comments: i === 1 ? ['first', 'second\nwith two lines'] : [],
        lost: i,
      }),
    ),
    interfaceStatistics(0, 1700000000000, { received: 3, lost: 1, delivered: 2 }),
  ]);
}

test('pcap in both byte orders and units of time', async () => {
  for (const little of [true, false]) {
    for (const nano of [true, false]) {
      const packets = await read(pcap(little, nano, PACKETS));
      assert.deepEqual(
        packets.map(({ bytes }) => bytes),
        PACKETS,
      );
      assert.deepEqual(packets[2], {
        ...{ number: 3, bytes: PACKETS[2], length: 1506, time: 1700000002250, linkType: 'ethernet', comments: [] },
      });
    }
  }
  assert.equal((await read(pcap(true, false, PACKETS, 101)))[0].linkType, 'ip');
});

test('pcapng, as it was written', async () => {
  const packets = await read(pcapng());
  assert.deepEqual(
    packets.map(({ bytes }) => bytes),
    PACKETS,
  );
  const [first, second, third] = packets;
  assert.deepEqual([first.interface, second.interface], ['flannel.1', 'eth0']);
  assert.deepEqual([first.direction, second.direction], ['in', 'out']);
  assert.deepEqual(second.comments, ['first', 'second\nwith two lines']);
  assert.equal(first.time, 1700000000250.125);
  assert.equal(third.length, 1503);
});

test('several sections', async () => {
  assert.equal((await read(Buffer.concat([pcapng(), pcapng()]))).length, 6);
});

test('the pieces in which it comes make no difference', async () => {
  for (const capture of [pcapng(), pcap(true, false, PACKETS)]) {
    const whole = await read(capture);
    for (const size of [1, 7, 64]) assert.deepEqual(await read(capture, size), whole);
  }
});

test('a broken capture is refused where it is broken, and what stands before it is read', async () => {
  const refuses = async (bytes: Uint8Array, message: RegExp, before = 0): Promise<void> => {
    let count = 0;
    await assert.rejects(
      async () => {
        for await (const _ of readCapture(chunked(bytes, 100))) count++;
      },
      (error: Error) => error instanceof CaptureError && message.test(error.message),
    );
    assert.equal(count, before);
  };
  await refuses(Buffer.alloc(0), /empty/);
  await refuses(Buffer.from('abc'), /no capture/);
  await refuses(Buffer.from('hello, world, this is text'), /begins with 68656c6c/);
  await refuses(Buffer.from('1f8b0800000000000000', 'hex'), /compressed: gunzip/);
  await refuses(pcap(true, false, PACKETS, 105), /link type 105 is not known/);
  await refuses(pcap(true, false, PACKETS).subarray(0, 24 + 16 + 30), /ends within packet 1: 30 of 60 bytes/);
  await refuses(pcap(true, false, PACKETS).subarray(0, -1), /ends within packet 3/, 2);
  await refuses(pcapng().subarray(0, -1), /ends within a block/, 3);
  const longRecord = pcap(true, false, PACKETS);
  longRecord.writeUInt32LE(0x7fffffff, 24 + 8);
  await refuses(longRecord, /packet 1 claims 2147483647 bytes/);
  const lengths = pcapng();
  lengths.writeUInt32LE(13, 4);
  await refuses(lengths, /a length of 13 bytes \(at byte 0\)/);
  const differ = pcapng();
  differ.writeUInt32LE(99, sectionHeader('test').length - 4);
  await refuses(differ, /two lengths of a block differ/);
  const noInterface = Buffer.concat([sectionHeader('x'), pcapng().subarray(-200, -40)]);
  await assert.rejects(read(noInterface), CaptureError);
});

test('no capture, however damaged, ends in anything but CaptureError', async () => {
  const damages = fc.array(fc.tuple(fc.nat(pcapng().length - 1), fc.nat(255)), { minLength: 1, maxLength: 6 });
  await fc.assert(
    fc.asyncProperty(fc.constantFrom(pcapng(), pcap(false, true, PACKETS)), damages, async (capture, damage) => {
      const bytes = Uint8Array.from(capture);
      for (const [offset, value] of damage) if (offset < bytes.length) bytes[offset] = value;
      await read(bytes, 50).catch((error) => assert.ok(error instanceof CaptureError, String(error.stack)));
    }),
    { numRuns: 500 },
  );
});
