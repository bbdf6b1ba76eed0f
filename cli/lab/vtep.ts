// The two ends of an overlay: the kernel's vxlan device or uvxlan, behind one face, so that a test runs with either.

import { fileURLToPath } from 'node:url';
import { type LinkRecord, socketPath } from '../../control/protocol.ts';
import { familyOf } from '../../wire/address.ts';
import { parseLine } from '../batch.ts';
import { askDaemon } from '../client.ts';
import { namespacePath } from './namespace.ts';
import type { Host } from './network.ts';
import { type Command, type Process, type Result, type RunOptions, words } from './process.ts';

export interface VtepOptions {
  /** The VTEP's own outer address. */
  local: string;
  /** Inner addresses with prefix length, "10.244.1.1/24 fd00::1/64". */
  addresses: string;
  mac: string;
  /** Default flannel.1. */
  name?: string;
  /** Default "id 1 dev eth0 dstport 8472 nolearning". */
  words?: string;
  /** What runs uvxlan; default this Node and the program itself. */
  program?: readonly string[];
}

export interface Vtep {
  readonly host: Host;
  readonly device: string;
  readonly local: string;
  /** Inner addresses without prefix length. */
  readonly addresses: readonly string[];
  readonly mac: string;
  /** `bridge fdb ARGUMENTS` of the kernel's, `uvxlan fdb ARGUMENTS` of ours. */
  fdb(args: string): Promise<string>;
}

export interface UvxlanVtep extends Vtep {
  readonly daemon: Process;
}

const DEFAULT_WORDS = 'id 1 dev eth0 dstport 8472 nolearning';
/** The program itself, as compiled. */
export const MAIN = fileURLToPath(new URL('../main.js', import.meta.url));
const PROGRAM: readonly string[] = [process.execPath, MAIN];

/** A kernel vxlan device, up and addressed. */
export function kernelVtep(host: Host, options: VtepOptions): Vtep {
  const device = options.name ?? 'flannel.1';
  host.ip(`link add ${device} type vxlan local ${options.local} ${options.words ?? DEFAULT_WORDS}`);
  return configured(host, device, options, async (args) => host.bridge(`fdb ${args}`));
}

/** Starts `uvxlan up` with the same words, waits for its ready line, and addresses the device. */
export async function uvxlanVtep(host: Host, options: VtepOptions, ready?: RegExp): Promise<UvxlanVtep> {
  const device = options.name ?? 'flannel.1';
  const { program } = options;
  const up = `${device} local ${options.local} ${options.words ?? DEFAULT_WORDS}`;
  const daemon = await uvxlanUp(host, up, ready, program);
  // Another version may have a protocol of its own.
  const fdb = program
    ? async (args: string) => (await uvxlan(host, `fdb ${args}`, {}, program)).stdout
    : (args: string) => uvxlanFdb(host, args);
  return { ...configured(host, device, options, fdb), daemon };
}

/** Starts `uvxlan up ARGUMENTS` in the host and resolves when its output matches `ready`. */
export async function uvxlanUp(
  host: Host,
  args: Command,
  ready = /uvxlan: \S+ is up/,
  program: readonly string[] = PROGRAM,
): Promise<Process> {
  const daemon = host.spawn([...program, 'up', ...words(args)]);
  await daemon.waitFor(ready);
  return daemon;
}

/** Runs `uvxlan ARGUMENTS` in the host to its end. */
export function uvxlan(
  host: Host,
  args: Command,
  options?: RunOptions,
  program: readonly string[] = PROGRAM,
): Promise<Result> {
  return host.run([...program, ...words(args)], options);
}

/** Asks the daemon in the host over its control socket. uvxlan() starts a process for it, which takes far longer. */
export function ask<T>(host: Host, command: string, args: object = {}): Promise<T> {
  return askDaemon(command, args, socketPath(namespacePath(host.namespace)));
}

/** The devices of the daemon in the host, or the one of this name. */
export function links(host: Host, name: string | null = null): Promise<LinkRecord[]> {
  return ask(host, 'link show', { name });
}

/** Has the daemon in the host change something, in the words of a batch's line: `fdb append ...`, `link set ...`. */
export async function tell(host: Host, line: string): Promise<void> {
  const { command, arguments: args } = parseLine(words(line));
  await ask(host, command, args as object);
}

/** `uvxlan fdb ARGUMENTS`, without a process where it prints nothing. */
export async function uvxlanFdb(host: Host, args: string): Promise<string> {
  if (!/^(add|append|replace|del) /.test(args)) return (await uvxlan(host, `fdb ${args}`)).stdout;
  await tell(host, `fdb ${args}`);
  return '';
}

/** Tells every VTEP about every other one: FDB entry and permanent neighbour entries, as flannel does. */
export async function introduce(...vteps: readonly Vtep[]): Promise<void> {
  for (const self of vteps) {
    for (const other of vteps) {
      if (other === self) continue;
      await self.fdb(`append ${other.mac} dev ${self.device} dst ${other.local}`);
      for (const address of other.addresses) {
        self.host.ip(`neigh replace ${address} lladdr ${other.mac} dev ${self.device} nud permanent`);
      }
    }
  }
}

/** Gives a device its MAC and addresses, and sets it up. */
export function configured(host: Host, device: string, options: VtepOptions, fdb: Vtep['fdb']): Vtep {
  const addresses = words(options.addresses);
  host.ip(`link set ${device} address ${options.mac} up`);
  for (const address of addresses) {
    host.ip(`address add ${address} dev ${device}${familyOf(address) === 6 ? ' nodad' : ''}`);
  }
  const bare = addresses.map((address) => address.split('/')[0]!);
  return { host, device, local: options.local, addresses: bare, mac: options.mac, fdb };
}
