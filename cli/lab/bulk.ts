// A bulk transfer whose every byte is checked, as two processes:
//   node bulk.js receive            prints "listening PORT", then one JSON line: bytes received and their SHA-256
//   node bulk.js send ADDRESS PORT BYTES    prints one JSON line: bytes sent, their SHA-256, seconds until all was received
// Or as functions, on sockets of the caller's. The bytes are an AES-CTR key stream: no two packets are alike, so a lost, doubled or misplaced
// one shows in the sum.

import { createCipheriv, createHash } from 'node:crypto';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';

const CHUNK = 256 * 1024;

function* randomBytes(total: number): Generator<Buffer> {
  const cipher = createCipheriv('aes-128-ctr', Buffer.alloc(16, 7), Buffer.alloc(16));
  const zeros = Buffer.alloc(CHUNK);
  for (let left = total; left > 0; left -= CHUNK) yield cipher.update(zeros.subarray(0, Math.min(left, CHUNK)));
}

/** A stage that hashes and counts what passes it. */
function meter() {
  const hash = createHash('sha256');
  let bytes = 0;
  return {
    async *pass(source: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
      for await (const chunk of source) {
        hash.update(chunk);
        bytes += chunk.length;
        yield chunk;
      }
    },
    report: (): BulkReport => ({ bytes, sha256: hash.digest('hex') }),
  };
}

/** What one end has seen: bytes and their SHA-256; of the sender also the seconds until all was received. */
export interface BulkReport {
  bytes: number;
  sha256: string;
  seconds?: number;
}

/** Takes all that comes, and answers when it was all. */
export async function receive(socket: Socket): Promise<BulkReport> {
  const { pass, report } = meter();
  for await (const _ of pass(socket)) {
    // counted by the meter
  }
  socket.end('done');
  return report();
}

/** Sends so many bytes, and waits for the answer. */
export async function send(socket: Socket, total: number): Promise<BulkReport> {
  const { pass, report } = meter();
  const start = process.hrtime.bigint();
  const answered = socket.toArray();
  await pipeline(Readable.from(randomBytes(total)), pass, socket, { end: true });
  await answered;
  return { ...report(), seconds: Number(process.hrtime.bigint() - start) / 1e9 };
}

if (process.argv[1] === import.meta.filename) {
  const [role, address, port, total] = process.argv.slice(2);
  const tell = (report: BulkReport) => console.log(JSON.stringify(report));
  if (role === 'receive') {
    const server = createServer({ allowHalfOpen: true }, async (socket) => {
      server.close();
      tell(await receive(socket));
    });
    server.listen(0, '::', () => console.log(`listening ${(server.address() as AddressInfo).port}`));
  } else tell(await send(connect({ host: address, port: Number(port), allowHalfOpen: true }), Number(total)));
}
