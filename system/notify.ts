/** sd_notify(3): tells systemd how far a service is, by a datagram to the UNIX socket that it names. */
import * as libc from './libc.ts';
import { AF_UNIX, SOCK_CLOEXEC, SOCK_DGRAM } from './socket.ts';

/** Longest path in a struct sockaddr_un, with the zero byte at its end. */
const SUN_PATH = 108;

/**
 * Sends `READY=1`, `STOPPING=1`, `STATUS=...`; several are lines. `socket` is $NOTIFY_SOCKET: undefined or '' where nobody waits.
 * Returns false when there is nobody, or who is there does not take it: a service goes on without.
 */
export function notify(state: string, socket: string | undefined = process.env.NOTIFY_SOCKET): boolean {
  if (!socket || Buffer.byteLength(socket) >= SUN_PATH) return false;
  const path = Buffer.from(socket);
  if (path[0] === 0x40) path[0] = 0; // '@': an abstract name
  const address = Buffer.alloc(2 + path.length + (path[0] === 0 ? 0 : 1));
  address.writeUInt16LE(AF_UNIX, 0);
  path.copy(address, 2);
  const fd = libc.socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return false;
  const bytes = Buffer.from(state);
  const sent = libc.sendto(fd, bytes, bytes.length, 0, address, address.length);
  libc.close(fd);
  return sent === bytes.length;
}
