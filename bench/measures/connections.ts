/** TCP connections a second, each with one request and one answer. */
import { fileURLToPath } from 'node:url';
import type { Measure } from './measure.ts';

const PROGRAM = [process.execPath, fileURLToPath(new URL('../programs/connections.js', import.meta.url))];

export const connections: Measure = {
  name: 'connections',
  about:
    'TCP connections a second, 16 at a time, one request and one answer each (the two Node programs share the CPUs)',
  mtu: 1500,
  quantities: [{ key: 'connections', title: 'TCP connections', unit: '1/s', better: 'more' }],
  async run({ left, right }, { seconds }) {
    const server = right.host.spawn([...PROGRAM, 'serve']);
    try {
      const [, port] = await server.waitFor(/listening (\d+)/);
      const client = [...PROGRAM, 'connect', right.addresses[0]!, port!, `${seconds}`];
      const { stdout } = await left.host.run(client, { timeout: (seconds + 15) * 1000 });
      const { done, seconds: taken } = JSON.parse(stdout) as { done: number; seconds: number };
      return { values: { connections: done / taken } };
    } finally {
      await server.stop();
    }
  },
};
