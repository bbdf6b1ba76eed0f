import type { DeviceConfig } from '../control/fields.ts';
import { parseDevice, UsageError } from '../control/words.ts';
import { commandLog, LOG_HELP } from './log.ts';
import { listenAddress, type Options, takeOptions } from './options.ts';

export const HELP = `Usage: uvxlan up NAME id VNI [ local ADDRESS ] [ dev NIC ] [ dstport PORT ] [ srcport MIN MAX ]
                 [ { remote | group } ADDRESS ] [ ttl { N | auto | inherit } ] [ tos { N | inherit } ]
                 [ df { unset | set | inherit } ] [ flowlabel N ] [ [no]udpcsum ] [ [no]udp6zerocsumtx ]
                 [ [no]udp6zerocsumrx ] [ ecn { linux | rfc6040 } ] [ reserved_bits N ] [ gbp ]
                 [ profile { linux | rfc7348 } ]
                 [ [no]learning ] [ ageing SECONDS ] [ maxaddress N ] [ vtep-filter { off | known | strict } ]
                 [ address MAC ] [ mtu N ] [ uplink { auto | redirect | udp | raw } ] [ workers N ] [ busy-poll USEC ] [ persist ]
                 [ offload { off | auto | require } [ offload-pin DIR ] ]
       uvxlan up --config FILE
Runs the daemon of this network namespace in the foreground until SIGTERM or Ctrl-C, with one device given in the words of
"ip link add NAME type vxlan", or with the devices of a YAML file that has the same words as keys.
  dstport    UDP port, 8472 when not given (the Linux kernel's default; IANA's is 4789)
  srcport    range of the outer source port, MAX excluded as in the kernel; where both are equal, as in 0 0, the
             default, it is the host's ip_local_port_range
  group      a multicast group in the place of remote, joined on dev: VTEPs find each other by it
  ttl        of the outer packets; auto, the default, is the host's; inherit: the inner packet's
  tos        of the outer packets, 0 when not given; inherit: the inner packet's. The ECN bits are always the inner ones
  df         the outer DF flag, unset by default: routers may fragment; inherit: the inner packet's, set for IPv6
  flowlabel  of outer IPv6 packets, 0 when not given
  udpcsum    outer UDP checksums on IPv4, the default as in the kernel
  udp6zerocsumtx, udp6zerocsumrx   send without UDP checksums on IPv6, take packets without; off by default
  ecn        linux, the default: CE goes out as ECT(0); rfc6040: as CE. What arrives is treated alike (RFC 6040)
  reserved_bits  bits of the VXLAN header for which a packet is dropped, all that mean nothing when not given
  gbp        group policy's bits are not reserved; a TAP has no mark to carry the policy to or from
  profile    rfc7348: dstport 4789, srcport 49152 65535, reserved_bits 0 and ecn rfc6040 where they are not given
  learning   the default as in the kernel: which VTEP a MAC is at is learned from the packets it sends; nolearning:
             the FDB has what it is given
  ageing     seconds until a learned MAC that is not heard any more goes, 300 when not given; 0: never
  maxaddress most MACs in the FDB, 0, the default: no limit
  vtep-filter known: only VTEPs of the device's FDB may send to it; strict: and only with source MACs that have an entry,
             not a learned one, for that VTEP; off is the default
  mtu        when not given: the NIC's less 50 bytes (IPv4 outside) or 70 (IPv6)
  uplink     how packets reach the NIC: redirect (whole frames past the host's stack, with offloads), udp
             (UDP sockets) or auto, the default: the first of these that works here; raw is a baseline for
             comparison: one packet a call, on the main thread, through the raw-socket package
  offload    auto: eBPF programs carry known flows without leaving the kernel, where that works and noudpcsum is given;
             'link show -d' says what is and why not; require: fail instead; off, the default: all through the workers
  offload-pin  a directory in a BPF file system: with persist, known flows go on while no daemon runs, until the next one has
             taken over or 'uvxlan cleanup'
  persist    the device stays when the daemon ends, with its addresses, routes and neighbours, and the next daemon takes
             it over: connections through it outlive a restart
  workers    threads of the daemon, one for each core up to 4 when not given; of several devices the most counts
  busy-poll  microseconds that a worker looks for more packets before it blocks, while they come that fast: 50 when not
             given, 0 never; of several devices the most counts
Options:
  --config FILE     devices and static FDB entries, see examples/
  --metrics ADDR:PORT   /metrics for Prometheus, /healthz and /readyz, 127.0.0.1:9469 say; without a token, so give an address
                    that only who may see the counters can reach
  --metrics-peers N   VTEPs with a series of their own, 100 when not given, those that cannot be reached first; 0: none
  --web ADDR:PORT   a page that shows what happens, 127.0.0.1:8443 say; on other addresses than loopback it asks
                    for a token, that of the environment as UVXLAN_WEB_TOKEN, or one in a file that the log names
${LOG_HELP}
  --without LIST    do without what the kernel offers, for tests: names with commas between, tunnel-gso,uso say
Exit status: 0 after SIGTERM or Ctrl-C, 1 after a failure, 2 when the words or the configuration are wrong.`;

export async function run(args: string[]): Promise<number> {
  const { options, words } = takeOptions(args, [
    'config',
    'metrics',
    'log-format',
    'log-level',
    'metrics-peers',
    'web',
    'without',
  ]);
  const { devices, notes } = await wantedDevices(options, words);
  const without = options.without === undefined ? [] : await hiddenCapabilities(options.without);
  const web = options.web === undefined ? undefined : await listenAddress('--web', options.web);
  const metrics = await metricsPlace(options);
  const { log, note, run: runLogged } = commandLog(options['log-level'], options['log-format']);
  for (const each of notes) note(each);
  return runLogged(async () => {
    const { runDaemon } = await import('../control/daemon.ts');
    return runDaemon({ devices, without, web, metrics, log });
  });
}

async function metricsPlace(options: Options): Promise<{ address: string; port: number; peers?: number } | undefined> {
  const { metrics, 'metrics-peers': peers } = options;
  if (peers !== undefined && metrics === undefined) throw new UsageError('--metrics-peers wants --metrics ADDR:PORT');
  if (peers !== undefined && !/^\d{1,6}$/.test(peers))
    throw new UsageError(`--metrics-peers wants a number from 0 on, not "${peers}"`);
  if (metrics === undefined) return undefined;
  return { ...(await listenAddress('--metrics', metrics)), ...(peers === undefined ? {} : { peers: Number(peers) }) };
}

async function wantedDevices(
  { config }: Options,
  words: readonly string[],
): Promise<{ devices: DeviceConfig[]; notes: string[] }> {
  if (config === undefined) {
    if (words.length === 0) throw new UsageError('a device or --config FILE is missing, see uvxlan up --help');
    const { device, notes } = parseDevice(words);
    return { devices: [device], notes };
  }
  if (words.length > 0)
    throw new UsageError(`unknown word "${words[0]}" beside --config: the devices stand in the file`);
  const { readConfig } = await import('../control/config.ts');
  return readConfig(config);
}

async function hiddenCapabilities(list: string): Promise<string[]> {
  const { CAPABILITY_WORDS } = await import('../system/capabilities.ts');
  const words = list.split(',');
  for (const word of words) {
    if (Object.hasOwn(CAPABILITY_WORDS, word)) continue;
    throw new UsageError(`--without: "${word}" is unknown, known are ${Object.keys(CAPABILITY_WORDS).join(',')}`);
  }
  return words;
}
