/** What the machine offers, whatever the devices are. */
import { readFileSync } from 'node:fs';
import os from 'node:os';
import { loadPackage } from '../../dataplane/uplink/raw-port.ts';
import { type Capabilities, overlayOffloads, probeCapabilities } from '../../system/capabilities.ts';
import { SystemError } from '../../system/libc.ts';
import { closeTap, createTap } from '../../system/tun.ts';
import { VNET_PLAIN } from '../../system/vnet.ts';
import { offloadObstacle } from '../offload/probe.ts';
import { steering } from '../steering.ts';
import { Findings } from './finding.ts';

/** Bits of a capability set, include/uapi/linux/capability.h. */
const CAP_NET_ADMIN = 12;
const CAP_NET_RAW = 13;

/** Each tier: what it is where it is there, what is done where it is not, and since which kernel there is one. */
const TIERS: Readonly<
  Record<keyof Capabilities, readonly [name: string, with_: string, without: string, since: string]>
> = {
  tunnelGso: [
    'tunnel-gso',
    'TCP super-frames leave whole',
    'TCP super-frames are cut up before they leave, which is slower (docs/kernels.md)',
    'Linux 6.17',
  ],
  uso: [
    'uso',
    'UDP super-frames pass through a TAP',
    'packets leave one by one on redirect, so that auto takes udp',
    'Linux 6.2',
  ],
  udpGso: ['udp-gso', 'sockets take runs of packets', 'the udp uplink sends packet by packet', 'Linux 4.18'],
  gro: ['gro', 'sockets hand over trains of packets', 'packets are received one by one', 'Linux 5.0'],
  tcx: [
    'tcx',
    'redirection goes with its process, kill -9 included',
    "tc filters redirect, which kill -9 leaves behind until 'uvxlan cleanup' or the next start",
    'Linux 6.6 and CAP_BPF',
  ],
};

export interface Machine {
  readonly findings: Findings;
  /** undefined: no TAP can be made here. */
  readonly capabilities: Capabilities | undefined;
}

export function lookAtMachine(): Machine {
  const findings = new Findings();
  findings.ok(
    'kernel',
    `Linux ${os.release()}, ${process.arch}, ${os.availableParallelism()} CPUs, Node ${process.version}`,
  );
  const isAdmin = lookAtPrivileges(findings);
  const capabilities = isAdmin ? lookAtTaps(findings) : undefined;
  if (!isAdmin) {
    findings.warn(
      'offloads',
      'what TAPs and eBPF can do here, and so which uplink auto takes, is not to be seen without CAP_NET_ADMIN',
      'run uvxlan doctor as root',
    );
  }
  lookAtRaw(findings);
  return { findings, capabilities };
}

function lookAtPrivileges(findings: Findings): boolean {
  const effective = BigInt(`0x${/^CapEff:\s*([0-9a-f]+)/m.exec(readFileSync('/proc/self/status', 'latin1'))![1]}`);
  const has = (bit: number) => ((effective >> BigInt(bit)) & 1n) === 1n;
  if (has(CAP_NET_ADMIN)) findings.ok('privileges', 'CAP_NET_ADMIN is there, for TAPs and redirection');
  else
    findings.fail(
      'privileges',
      'CAP_NET_ADMIN is missing: no TAP can be made',
      'run as root, or give it to the process',
    );
  if (has(CAP_NET_ADMIN) && !has(CAP_NET_RAW)) {
    findings.warn(
      'privileges',
      'CAP_NET_RAW is missing: no uplink raw, and narrow paths are not found out over IPv6',
      'give it to the process',
    );
  }
  return has(CAP_NET_ADMIN);
}

function lookAtTaps(findings: Findings): Capabilities | undefined {
  let capabilities: Capabilities;
  try {
    capabilities = probeCapabilities();
  } catch (error) {
    if (!(error instanceof SystemError)) throw error;
    findings.fail('tun', error.message);
    return undefined;
  }
  findings.ok('tun', 'TAPs can be made');
  for (const [key, [name, with_, without, since]] of Object.entries(TIERS)) {
    if (capabilities[key as keyof Capabilities]) findings.ok(name, with_);
    else findings.warn(name, without, `${since} has it`);
  }
  const tap = createTap('uvxprobe%d', 2, VNET_PLAIN, overlayOffloads(capabilities));
  const steers = steering()?.device(tap) ?? false;
  closeTap(tap);
  if (steers) findings.ok('steering', 'each flow keeps its worker');
  else {
    findings.warn(
      'steering',
      'the kernel may give a flow to another worker, which can reorder it once, with the first answer',
      'Linux 4.16 and CAP_BPF',
    );
  }
  lookAtOffload(findings, capabilities);
  return capabilities;
}

function lookAtOffload(findings: Findings, { tcx }: Capabilities): void {
  const obstacle = tcx ? offloadObstacle() : 'it needs TCX links, of Linux 6.6 and CAP_BPF';
  if (obstacle === undefined) {
    findings.ok(
      'offload',
      'the kernel can carry known flows of the redirect uplink: offload auto, to send with noudpcsum',
    );
  } else {
    findings.warn(
      'offload',
      `the kernel cannot carry known flows, so that offload auto leaves all to the workers: ${obstacle}`,
      'docs/offload.md says what it needs',
    );
  }
}

function lookAtRaw(findings: Findings): void {
  try {
    loadPackage();
    findings.ok('raw', 'the raw-socket package is there, for uplink raw');
  } catch {
    findings.ok('raw', 'the optional raw-socket package is not installed: there is no uplink raw');
  }
}
