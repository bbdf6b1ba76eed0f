// A bulk transfer whose every byte is checked, as two processes:
//   node bulk.js receive            prints "listening PORT", then one JSON line: bytes received and their SHA-256
//   node bulk.js send ADDRESS PORT BYTES    prints one JSON line: bytes sent, their SHA-256, seconds until all was received
// The bytes are an AES-CTR key stream: no two packets are alike, so a lost, doubled or misplaced one shows in the sum.

import { createCipheriv, createHash } from 'node:crypto';
import { connect, createServer } from 'node:net';
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
    report: (extra: object = {}) => console.log(JSON.stringify({ bytes, sha256: hash.digest('hex'), ...extra })),
  };
}

function receive(): void {
  const server = createServer({ allowHalfOpen: true }, async (socket) => {
    server.close();
    const { pass, report } = meter();
    for await (const _ of pass(socket)) {
      // counted by the meter
    }
    report();
    socket.end('done');
  });
  server.listen(0, '::', () => console.log(`listening ${(server.address() as { port: number }).port}`));
}

async function send(address: string, port: number, total: number): Promise<void> {
  const socket = connect({ host: address, port, allowHalfOpen: true });
  const { pass, report } = meter();
  const start = process.hrtime.bigint();
  const answered = socket.toArray();
  await pipeline(Readable.from(randomBytes(total)), pass, socket, { end: true });
  await answered;
  report({ seconds: Number(process.hrtime.bigint() - start) / 1e9 });
}

const [role, ...rest] = process.argv.slice(2);
if (role === 'receive') receive();
else await send(rest[0]!, Number(rest[1]), Number(rest[2]));
