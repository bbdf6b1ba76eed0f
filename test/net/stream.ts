// A TCP connection that stays open, as two processes, whose every byte is checked:
//   node stream.js receive           prints "listening PORT", then the bytes received so far, a line every 20 ms; at the end JSON
//   node stream.js send ADDRESS PORT    sends a chunk every 10 ms until SIGTERM, then closes and prints JSON
// The JSON line holds the bytes and their SHA-256.

import { createCipheriv, createHash } from 'node:crypto';
import { connect, createServer } from 'node:net';

const CHUNK = 32 * 1024;
const PAUSE = 10;
const TOLD_EVERY = 20;

function receive(): void {
  const server = createServer((socket) => {
    server.close();
    const hash = createHash('sha256');
    let bytes = 0;
    const timer = setInterval(() => console.log(bytes), TOLD_EVERY);
    socket.on('data', (chunk) => {
      hash.update(chunk);
      bytes += chunk.length;
    });
    socket.on('end', () => {
      clearInterval(timer);
      console.log(JSON.stringify({ bytes, sha256: hash.digest('hex') }));
    });
  });
  server.listen(0, '::', () => console.log(`listening ${(server.address() as { port: number }).port}`));
}

function send(address: string, port: number): void {
  const cipher = createCipheriv('aes-128-ctr', Buffer.alloc(16, 7), Buffer.alloc(16));
  const zeros = Buffer.alloc(CHUNK);
  const hash = createHash('sha256');
  let bytes = 0;
  const socket = connect({ host: address, port });
  const timer = setInterval(() => {
    if (socket.writableLength > 0) return; // the connection is at rest
    const chunk = cipher.update(zeros);
    hash.update(chunk);
    bytes += chunk.length;
    socket.write(chunk);
  }, PAUSE);
  process.on('SIGTERM', () => {
    clearInterval(timer);
    socket.end(() => console.log(JSON.stringify({ bytes, sha256: hash.digest('hex') })));
  });
}

const [role, address, port] = process.argv.slice(2);
if (role === 'receive') receive();
else send(address!, Number(port));
