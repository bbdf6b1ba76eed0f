import { fileURLToPath } from 'node:url';
import type { Host } from './network.ts';

/** Captures in a host from now on; what it resolves with gives the first ping in VXLAN that passes the device. */
export async function capturePing(host: Host, device: string): Promise<() => Promise<Uint8Array>> {
  const program = fileURLToPath(new URL('./packet-socket.js', import.meta.url));
  const capture = host.spawn([process.execPath, program, device]);
  await capture.waitFor(/^capturing$/m);
  return async () => Buffer.from((await capture.waitFor(/^([0-9a-f]{28,})$/m, 2_000))[1], 'hex');
}
