/** What the kernel offers, found out once by trying. Every tier can be hidden (`--without`), so that it is tested on a new kernel. */
import { TCX_INGRESS, TCX_NEXT } from './bpf/abi.ts';
import { Assembler } from './bpf/assembler.ts';
import { attachTcx } from './bpf/link.ts';
import * as libc from './libc.ts';
import { UDP_GRO, UDP_SEGMENT, udpOptionWorks } from './socket.ts';
import { closeTap, createTap, setOffloads } from './tun.ts';
import {
  TUN_F_CSUM,
  TUN_F_TSO4,
  TUN_F_TSO6,
  TUN_F_UDP_TUNNEL_GSO,
  TUN_F_UDP_TUNNEL_GSO_CSUM,
  TUN_F_USO4,
  TUN_F_USO6,
  VNET_TUNNEL,
} from './vnet.ts';

export interface Capabilities {
  /** Super-frames with tunnel metadata through a TAP (Linux 6.17). */
  readonly tunnelGso: boolean;
  /** UDP super-frames through a TAP (Linux 6.2). */
  readonly uso: boolean;
  /** UDP_SEGMENT on sockets (Linux 4.18). */
  readonly udpGso: boolean;
  /** UDP_GRO on sockets (Linux 5.0). */
  readonly gro: boolean;
  /** eBPF programs attached by TCX links (Linux 6.6, CAP_BPF). */
  readonly tcx: boolean;
}

/** The words that `--without` takes, and what each hides. */
export const CAPABILITY_WORDS: Readonly<Record<string, keyof Capabilities>> = {
  'tunnel-gso': 'tunnelGso',
  uso: 'uso',
  'udp-gso': 'udpGso',
  gro: 'gro',
  tcx: 'tcx',
};

const TCP_OFFLOADS = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6;
const USO = TUN_F_USO4 | TUN_F_USO6;
const TUNNEL = TUN_F_UDP_TUNNEL_GSO | TUN_F_UDP_TUNNEL_GSO_CSUM;

/**
 * Tries everything on a throw-away TAP and socket. Throws a SystemError where not even a TAP can be made: EPERM without
 * CAP_NET_ADMIN, ENOENT without /dev/net/tun.
 */
export function probeCapabilities(without: readonly string[] = []): Capabilities {
  const tap = createTap('uvxprobe%d', 1, VNET_TUNNEL, 0);
  let found: Capabilities;
  try {
    found = {
      tunnelGso: takes(tap.queues[0], tap.name, TCP_OFFLOADS | USO | TUNNEL),
      uso: takes(tap.queues[0], tap.name, TCP_OFFLOADS | USO),
      udpGso: udpOptionWorks(UDP_SEGMENT, 1400),
      gro: udpOptionWorks(UDP_GRO, 1),
      tcx: tcxWorks(tap.name),
    };
  } finally {
    closeTap(tap);
  }
  const hidden = Object.fromEntries(without.map((word) => [CAPABILITY_WORDS[word], false]));
  return { ...found, ...hidden };
}

function takes(fd: number, name: string, offloads: number): boolean {
  try {
    setOffloads(fd, name, offloads);
    return true;
  } catch (error) {
    if (error instanceof libc.SystemError && error.errno === libc.EINVAL) return false;
    throw error;
  }
}

/** Whatever the reason, tc filters do instead: an old kernel, no CAP_BPF, a user namespace, lockdown. */
function tcxWorks(device: string): boolean {
  const program = new Assembler('uvxlan_probe');
  program.mov('r0', TCX_NEXT);
  program.exit();
  try {
    libc.close(attachTcx(program.assemble(), libc.ifIndex(device), TCX_INGRESS));
    return true;
  } catch (error) {
    if (error instanceof libc.SystemError) return false;
    throw error;
  }
}

/** TUNSETOFFLOAD bits for the overlay's TAP. */
export function overlayOffloads(capabilities: Capabilities): number {
  return TCP_OFFLOADS | (capabilities.uso ? USO : 0);
}

/** TUNSETOFFLOAD bits for the uplink's TAP. */
export function uplinkOffloads(capabilities: Capabilities): number {
  return overlayOffloads(capabilities) | (capabilities.tunnelGso ? TUNNEL : 0);
}
