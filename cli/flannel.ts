import { OFFLOAD_CHOICES, UPLINKS, VTEP_FILTERS } from '../control/fields.ts';
import { Flags, flagsHelp } from '../control/flannel/flags.ts';
import { VERSION } from '../control/protocol.ts';
import { UsageError } from '../control/words.ts';
import { parseIpv4, parseIpv6 } from '../wire/address.ts';
import { commandLog } from './log.ts';
import { print } from './output.ts';

export const HELP = `Usage: uvxlan flannel [ FLAG ... ]
Makes this host a node of a flannel cluster, instead of flanneld: registers it, and keeps devices, routes, neighbours, forwarding entries and
firewall rules as the cluster wants them, in the foreground until SIGTERM or Ctrl-C. Other nodes may be on the kernel's VXLAN.
What is on the host stays when it ends, so that traffic outlives a restart; --cleanup removes it.
The flags are flanneld's; each may also be given as FLANNELD_NAME in the environment. In brackets: what counts without.
${flagsHelp()}
Exit status: 0 after SIGTERM or Ctrl-C, 1 after a failure, 2 when the flags are wrong.`;

export async function run(args: string[]): Promise<number> {
  const flags = new Flags(args, process.env);
  if (flags.flag('version')) {
    print(`uvxlan ${VERSION}`);
    return 0;
  }
  const { log, note, run: runLogged } = commandLog(flags.text('log-level'), flags.text('log-format'));
  for (const each of flags.notes) note(each);
  const pins = flags.text('offload-pin');
  if (pins !== '' && !pins.startsWith('/')) throw new UsageError(`--offload-pin ${pins} is not an absolute path`);
  if (flags.flag('cleanup')) return cleanUp(flags.text('subnet-file'), pins);
  const filter = choice(flags, 'vtep-filter', VTEP_FILTERS);
  const offload = choice(flags, 'offload', OFFLOAD_CHOICES);
  if (filter === 'strict' && offload === 'require') {
    throw new UsageError('--offload require: with --vtep-filter strict workers look at each packet that is received');
  }
  const options = {
    interface: {
      iface: flags.list('iface'),
      ifaceRegex: flags.list('iface-regex').map(checkedPattern),
      ifaceCanReach: flags.text('iface-can-reach'),
      except: [],
    },
    publicIp: {
      ipv4: address(flags, 'public-ip', parseIpv4, 'IPv4'),
      ipv6: address(flags, 'public-ipv6', parseIpv6, 'IPv6'),
    },
    subnetFile: flags.text('subnet-file'),
    healthz: { ip: flags.text('healthz-ip'), port: flags.number('healthz-port', 0, 65535) },
    ipMasq: flags.flag('ip-masq'),
    randomFully: !flags.flag('ip-masq-fully-random-disable'),
    forwardRules: flags.flag('iptables-forward-rules'),
    device: {
      uplink: choice(flags, 'uplink', UPLINKS),
      'vtep-filter': filter,
      offload,
      'offload-pin': pins || null,
    },
    without: [],
    log,
  };
  return runLogged(async () => {
    const { openSource } = await import('../control/flannel/open-source.ts');
    const source = await openSource(flags, log);
    const { runAgent } = await import('../control/flannel/agent.ts');
    return runAgent({ ...options, source });
  });
}

async function cleanUp(subnetFile: string, pins: string): Promise<number> {
  const { removeDeadSocket } = await import('../control/dead-sockets.ts');
  const { socketPath } = await import('../control/protocol.ts');
  await removeDeadSocket(socketPath());
  const { cleanUpFlannel } = await import('../control/flannel/cleanup.ts');
  const { Host } = await import('../control/host.ts');
  const { PIN_DIRECTORY } = await import('../control/offload/pins.ts');
  for (const what of await cleanUpFlannel(new Host(), subnetFile, pins || PIN_DIRECTORY))
    print(`uvxlan: removed ${what}`);
  return 0;
}

function checkedPattern(pattern: string): string {
  try {
    new RegExp(pattern);
  } catch (error) {
    throw new UsageError(`--iface-regex ${pattern}: ${(error as Error).message}`);
  }
  return pattern;
}

function address(
  flags: Flags,
  name: 'public-ip' | 'public-ipv6',
  parse: (text: string) => Uint8Array | undefined,
  family: string,
): string | null {
  const text = flags.text(name);
  if (text === '') return null;
  if (!parse(text)) throw new UsageError(`--${name} ${text} is not an ${family} address`);
  return text;
}

/** Throws UsageError when the flag has none of these. */
function choice<T extends string>(flags: Flags, name: 'uplink' | 'vtep-filter' | 'offload', choices: readonly T[]): T {
  const text = flags.text(name);
  const found = choices.find((each) => each === text);
  if (found === undefined) throw new UsageError(`--${name} ${text} is not one of ${choices.join(', ')}`);
  return found;
}
