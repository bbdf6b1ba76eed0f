/**
 * The offload's links by name, so that the kernel goes on forwarding known flows while no daemon runs. A daemon that starts attaches
 * its own beside those that it finds, and removes them when it knows as much as they do.
 *
 *     DIRECTORY/uvxlan-NAMESPACE-RUN-NUMBER       NAMESPACE: inode of the network namespace; RUN: by chance, since in a container each has the process id 1
 */
import { randomBytes } from 'node:crypto';
import { readdirSync, rmSync, statSync } from 'node:fs';
import { checkPinDirectory, pin } from '../../system/bpf/pin.ts';

/** Where systemd and container hosts mount the BPF file system. */
export const PIN_DIRECTORY = '/sys/fs/bpf';

const OURS = /^uvxlan-(\d+)-([\da-f]+)-\d+$/;
const RUN = randomBytes(4).toString('hex');

let number = 0;

/** Names a link in a directory; returns the path. Throws when that is not in a BPF file system. */
export function pinLink(link: number, directory: string): string {
  checkPinDirectory(directory);
  const path = `${directory}/uvxlan-${namespace()}-${RUN}-${number++}`;
  pin(link, path);
  return path;
}

/** Removes the names of this network namespace that other processes have given; returns their paths. */
export function removePins(directory: string): string[] {
  let names: string[];
  try {
    names = readdirSync(directory);
  } catch {
    return []; // not there: nothing was ever named in it
  }
  const paths = names.flatMap((name) => {
    const [, inode, run] = name.match(OURS) ?? [];
    return Number(inode) === namespace() && run !== RUN ? [`${directory}/${name}`] : [];
  });
  for (const path of paths) rmSync(path);
  return paths;
}

function namespace(): number {
  return statSync('/proc/self/ns/net').ino;
}
