import { statSync } from 'node:fs';
import { TCX_INGRESS } from '../system/bpf/abi.ts';
import { attachTcx } from '../system/bpf/link.ts';
import * as libc from '../system/libc.ts';
import type { Host, NicLink } from './host.ts';
import { receiveProgram, sendProgram } from './redirect-programs.ts';
import { addFilters, deleteFilters, type Filters, lackFilters } from './traffic-control.ts';

/**
 * The redirect uplink's redirection:
 *
 *     uplink TAP ingress --- everything ------------------------------> NIC egress
 *     NIC ingress ---------- VXLAN to our address and port -----------> uplink TAP egress
 *
 * Nothing of it passes the host's stack. With TCX links (Linux 6.6) it goes when this process goes, however that ends, so that
 * whoever takes the port next gets its packets. Without them tc filters do it, which stay after kill -9 until they are cleaned
 * up. On the NIC's ingress, TCX programs that were there before ours decide before it, and tc filters see what it leaves.
 *
 * The uplink TAP is nobody's interface: no addresses, no ARP, no multicast, and it must be left alone by network managers
 * (NetworkManager: `unmanaged-devices=interface-name:NAME`; systemd-networkd does so by default).
 */

export interface RedirectOptions {
  nic: string;
  /** The NIC as it was just read; read when not given. */
  link?: NicLink;
  /** The uplink TAP. */
  uplink: string;
  /** Our IPv4 or IPv6 address: destination of the packets that are taken. */
  local: string;
  /** UDP destination port of the packets that are taken. */
  port: number;
  /** Whether TCX links work here; tc filters otherwise. Links are made in this process's own network namespace only. */
  tcx: boolean;
}

/** A redirection that is in place. */
export type Redirect = { readonly links: number[] } | { readonly filters: Filters };

/**
 * Sets the uplink TAP up and then puts a redirection in place: a TAP that is down drops what it is given. When a step fails, what was
 * done is undone and the error says which step it was.
 */
export async function attachRedirect(host: Host, options: RedirectOptions): Promise<Redirect> {
  const { nic, uplink, local, port } = options;
  const link = options.link ?? (await host.link(nic));
  if (!link) throw new Error(`cannot redirect to ${nic}: there is no such device`);
  let redirect: Redirect | undefined;
  try {
    await host.setLink(uplink, { ipv6Address: false, mtu: link.mtu, arp: false, multicast: false, up: true });
    redirect = options.tcx
      ? { links: await attachPrograms(host, link, uplink, local, port) }
      : { filters: await addFilters(host, link, uplink, local, port) };
    return redirect;
  } catch (error) {
    if (redirect) await detachRedirect(host, redirect).catch(() => {});
    throw new Error(`cannot redirect ${nic} to ${uplink}: ${(error as Error).message}`, { cause: error });
  }
}

/** Removes exactly this redirection, whatever of it is left. A second time does no harm. */
export async function detachRedirect(host: Host, redirect: Redirect): Promise<void> {
  if ('links' in redirect) await Promise.all(redirect.links.splice(0).map(libc.closeAside));
  else await deleteFilters(host, redirect.filters);
}

/**
 * Puts a redirection back that somebody has removed a part of; undefined when nothing is missing. Only tc filters can go by
 * themselves: a link is held by its descriptor.
 */
export async function mendRedirect(
  host: Host,
  redirect: Redirect,
  options: RedirectOptions,
): Promise<Redirect | undefined> {
  if ('links' in redirect || !(await lackFilters(host, redirect.filters))) return undefined;
  await detachRedirect(host, redirect);
  return attachRedirect(host, options);
}

/** Descriptors of the two links. */
async function attachPrograms(
  host: Host,
  nic: NicLink,
  uplink: string,
  local: string,
  port: number,
): Promise<number[]> {
  // A device's number means another device in another namespace.
  if ((await host.namespaceInode()) !== statSync('/proc/self/ns/net').ino) {
    throw new Error("TCX links cannot be made in another process's network namespace");
  }
  const tap = libc.ifIndex(uplink);
  if (tap === 0) throw new Error(`the device ${uplink} is gone`);
  const links = [attachTcx(sendProgram(nic.ifindex), tap, TCX_INGRESS)];
  try {
    links.push(attachTcx(receiveProgram(tap, local, port), nic.ifindex, TCX_INGRESS));
  } catch (error) {
    libc.close(links[0]);
    throw error;
  }
  return links;
}
