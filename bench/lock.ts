/** One benchmark at a time: an abstract UNIX socket, which is gone with the process, however that ends. */
import { connect, createServer } from 'node:net';

/** Resolves with what gives the lock back. Throws, naming the other process, when another run has it. */
export async function lock(name = 'uvxlan-bench'): Promise<() => void> {
  const path = `\0${name}`;
  const server = createServer((socket) => socket.end(`${process.pid}`)).unref();
  try {
    await new Promise<void>((resolve, reject) => server.once('error', reject).listen(path, resolve));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EADDRINUSE') throw error;
    throw new Error(`a benchmark is running (process ${await holder(path)}): two would measure each other`);
  }
  return () => server.close();
}

function holder(path: string): Promise<string> {
  return new Promise((resolve) => {
    let text = '';
    connect(path)
      .setEncoding('utf8')
      .on('data', (data: string) => (text += data))
      // One that measures may not answer before it is done.
      .setTimeout(500, () => resolve('unknown'))
      .on('error', () => resolve('unknown'))
      .on('close', () => resolve(text || 'unknown'));
  });
}
