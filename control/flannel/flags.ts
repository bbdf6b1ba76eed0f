/**
 * flanneld's flags, under its names and with its defaults, and a few of our own at the end. Each may also come from the environment, as
 * FLANNELD_ and the name in capitals with underscores; what is on the command line counts more.
 */
import { nearest } from '../nearest.ts';
import { UsageError } from '../words.ts';

interface Flag {
  /** What stands for its value in the help; '' for one that is true or false. */
  readonly value: string;
  readonly usual: string;
  readonly help: string;
  /** May be given several times. */
  readonly many?: true;
  /** Belongs on no command line that others can see, and in no log. */
  readonly secret?: true;
}

export const FLAGS = {
  'kube-subnet-mgr': { value: '', usual: 'false', help: 'the Kubernetes API holds the state of the cluster, not etcd' },
  'kube-api-url': { value: 'URL', usual: '', help: 'of the API server, when not running in a pod' },
  'kubeconfig-file': { value: 'FILE', usual: '', help: 'how to get at the API server, when not running in a pod' },
  'kube-annotation-prefix': { value: 'NAME', usual: 'flannel.alpha.coreos.com', help: 'of the annotations of nodes' },
  'net-config-path': {
    value: 'FILE',
    usual: '/etc/kube-flannel/net-conf.json',
    help: 'the network configuration, with --kube-subnet-mgr',
  },
  'set-node-network-unavailable': {
    value: '',
    usual: 'true',
    help: 'makes the condition NetworkUnavailable of the node false when it forwards',
  },
  'etcd-endpoints': { value: 'URL,...', usual: 'http://127.0.0.1:4001,http://127.0.0.1:2379', help: 'servers of etcd' },
  'etcd-prefix': {
    value: 'KEY',
    usual: '/coreos.com/network',
    help: 'under which etcd holds the state of the cluster',
  },
  'etcd-keyfile': { value: 'FILE', usual: '', help: 'key of the client certificate' },
  'etcd-certfile': { value: 'FILE', usual: '', help: 'client certificate' },
  'etcd-cafile': { value: 'FILE', usual: '', help: 'certificate authority of the servers' },
  'etcd-username': { value: 'NAME', usual: '', help: 'user of etcd' },
  'etcd-password': {
    value: 'WORD',
    usual: '',
    help: 'its password: better given as FLANNELD_ETCD_PASSWORD',
    secret: true,
  },
  'subnet-lease-renew-margin': {
    value: 'MINUTES',
    usual: '60',
    help: 'that are left of the lease in etcd when it is renewed',
  },
  iface: {
    value: 'NIC',
    usual: '',
    help: 'name or address of the NIC to other nodes; the first of several that is there',
    many: true,
  },
  'iface-regex': {
    value: 'REGEX',
    usual: '',
    help: 'of its address, or else of its name; after those of --iface',
    many: true,
  },
  'iface-can-reach': { value: 'ADDRESS', usual: '', help: 'the NIC that the route to it leads through' },
  'public-ip': {
    value: 'ADDRESS',
    usual: '',
    help: "IPv4 address that other nodes reach this one at, if it is not the NIC's",
  },
  'public-ipv6': { value: 'ADDRESS', usual: '', help: 'the same, IPv6' },
  'subnet-file': {
    value: 'FILE',
    usual: '/run/flannel/subnet.env',
    help: 'written for the CNI plugin when this node is ready',
  },
  'ip-masq': { value: '', usual: 'false', help: 'masquerade what pods send to the outside' },
  'ip-masq-fully-random-disable': { value: '', usual: 'false', help: 'masquerade without --random-fully' },
  'iptables-forward-rules': {
    value: '',
    usual: 'true',
    help: "add rules that let pods' packets through the FORWARD chain",
  },
  'healthz-ip': { value: 'ADDRESS', usual: '0.0.0.0', help: 'where /healthz, /readyz and /metrics are served' },
  'healthz-port': { value: 'PORT', usual: '0', help: 'the same; 0: nowhere' },
  config: { value: 'FILE', usual: '', help: 'the state of the cluster as a static file, see examples/flannel.yaml' },
  'node-name': {
    value: 'NAME',
    usual: '',
    help: 'this node in the file or the Kubernetes API; else $NODE_NAME, else the host name',
  },
  uplink: { value: 'KIND', usual: 'auto', help: 'how packets reach the NIC, see uvxlan up --help' },
  'vtep-filter': {
    value: 'MODE',
    usual: 'known',
    help: 'whose packets are taken: off, known (nodes, with their own MAC), strict (and their own pod subnet)',
  },
  offload: {
    value: 'MODE',
    usual: 'auto',
    help: 'whether the kernel carries known flows: off, auto (where it can), require; see docs/offload.md',
  },
  'offload-pin': {
    value: 'DIR',
    usual: '',
    help: 'in a BPF file system such as /sys/fs/bpf: known flows go on while the agent restarts',
  },
  'log-level': { value: 'LEVEL', usual: '', help: 'error, warn, info or debug; else $UVXLAN_LOG_LEVEL, else info' },
  'log-format': { value: 'FORMAT', usual: '', help: 'human or json; else $UVXLAN_LOG_FORMAT, else human' },
  cleanup: { value: '', usual: 'false', help: 'remove all that the agent keeps on this host, and end' },
  version: { value: '', usual: 'false', help: 'print the version, and end' },
} as const satisfies Record<string, Flag>;

export type FlagName = keyof typeof FLAGS;

/** What flanneld also takes and has no meaning here, with why. */
const WITHOUT_MEANING: Readonly<Record<string, string>> = {
  'iptables-resync': 'rules are compared every 4 seconds',
  v: 'levels of logging have names, see --log-level',
  vmodule: 'levels of logging have names, see --log-level',
  log_backtrace_at: 'levels of logging have names, see --log-level',
  logtostderr: 'the log goes to standard output',
  alsologtostderr: 'the log goes to standard output',
};

/** Values of all flags: from the command line, else the environment, else the usual ones. */
export class Flags {
  readonly #values = new Map<FlagName, string[]>();
  /** What was given and is ignored, and why: lines for the user. */
  readonly notes: readonly string[];

  /** As Go's flag package reads them: one dash or two, `--name=value` or `--name value`, `--name` alone for true. Throws UsageError. */
  constructor(args: readonly string[], environment: NodeJS.ProcessEnv) {
    const notes: string[] = [];
    for (const [name, { usual }] of Object.entries(FLAGS) as [FlagName, Flag][]) {
      const given = environment[`FLANNELD_${name.toUpperCase().replaceAll('-', '_')}`];
      this.#values.set(name, given ? [given] : usual === '' ? [] : [usual]);
    }
    const seen = new Set<FlagName>();
    for (let next = 0; next < args.length; ) {
      const argument = args[next++];
      const [, name = '', inline] = /^--?([A-Za-z][\w-]*)(?:=(.*))?$/s.exec(argument) ?? [];
      if (name === '') throw new UsageError(`unknown word "${argument}": uvxlan flannel takes flags only, see --help`);
      if (Object.hasOwn(WITHOUT_MEANING, name)) {
        if (inline === undefined && args[next] !== undefined && !args[next].startsWith('-')) next++;
        notes.push(`--${name} is ignored: ${WITHOUT_MEANING[name]}`);
        continue;
      }
      if (!isFlag(name)) throw unknown(name);
      const flag: Flag = FLAGS[name];
      const value = inline ?? (flag.value === '' ? 'true' : args[next++]);
      if (value === undefined) throw new UsageError(`--${name} wants a value: ${flag.value}`);
      if (seen.has(name) && !flag.many) throw new UsageError(`--${name} is given twice`);
      const before = seen.has(name) ? this.#values.get(name)! : [];
      this.#values.set(name, [...before, value]);
      seen.add(name);
    }
    this.notes = notes;
  }

  /** '' when there is none. */
  text(name: FlagName): string {
    return this.#values.get(name)![0] ?? '';
  }

  /** All that were given, in their order. */
  list(name: FlagName): readonly string[] {
    return this.#values.get(name)!.filter((value) => value !== '');
  }

  /** Go's words for true and false. Throws UsageError. */
  flag(name: FlagName): boolean {
    const text = this.text(name);
    if (/^(1|t|true)$/i.test(text)) return true;
    if (/^(0|f|false)$/i.test(text)) return false;
    throw new UsageError(`--${name}=${text} is neither true nor false`);
  }

  /** A whole number of the range. Throws UsageError. */
  number(name: FlagName, low: number, high: number): number {
    const text = this.text(name);
    const value = Number(text);
    if (/^\d+$/.test(text) && value >= low && value <= high) return value;
    throw new UsageError(`--${name} ${text} is not a number ${low}..${high}`);
  }
}

function isFlag(name: string): name is FlagName {
  return Object.hasOwn(FLAGS, name);
}

function unknown(name: string): UsageError {
  const suggestion = nearest(name, Object.keys(FLAGS));
  return new UsageError(
    `flag --${name} is unknown, ${suggestion ? `did you mean --${suggestion}?` : 'see uvxlan flannel --help'}`,
  );
}

/** The flags as a help text lists them. */
export function flagsHelp(): string {
  const rows = (Object.entries(FLAGS) as [FlagName, Flag][]).map(([name, { value, usual, help, secret }]) => {
    const shown = usual === '' || usual === 'false' || secret ? '' : ` (${usual})`;
    return [`  --${name}${value === '' ? '' : ` ${value}`}`, `${help}${shown}`];
  });
  return rows
    .map(([left, right]) => (left.length > 30 ? `${left}\n${' '.repeat(32)}${right}` : `${left.padEnd(32)}${right}`))
    .join('\n');
}
