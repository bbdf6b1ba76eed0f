// TCP connections, one request and one answer each (netperf's TCP_CRR), as two processes:
//   node connections.js serve                            prints "listening PORT"
//   node connections.js connect ADDRESS PORT SECONDS     prints one JSON line: connections done, seconds

import { connect, createServer } from 'node:net';

/** Open at a time. */
const AT_ONCE = 16;

function serve(): void {
  const server = createServer((socket) => socket.once('data', () => socket.end('.')).on('error', () => {}));
  server.listen(0, '::', 1024, () => console.log(`listening ${(server.address() as { port: number }).port}`));
}

function once(host: string, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host, port, noDelay: true });
    socket.on('connect', () => socket.write('.'));
    socket.on('data', () => {});
    socket.on('error', reject);
    socket.on('close', () => resolve());
  });
}

async function run(address: string, port: number, seconds: number): Promise<void> {
  const start = performance.now();
  let done = 0;
  const chain = async () => {
    for (; performance.now() - start < seconds * 1000; done++) await once(address, port);
  };
  await Promise.all(Array.from({ length: AT_ONCE }, chain));
  console.log(JSON.stringify({ done, seconds: (performance.now() - start) / 1000 }));
}

const [role, ...rest] = process.argv.slice(2);
if (role === 'serve') serve();
else await run(rest[0]!, Number(rest[1]), Number(rest[2]));
