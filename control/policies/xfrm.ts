/** IPsec policies, from the text of `ip xfrm policy` (iproute2 has no JSON for them): read as a chain for each direction. */
import {
  addressIn,
  addressRange,
  all,
  always,
  type Condition,
  constant,
  type Direction,
  deviceIn,
  markIn,
  never,
  perhaps,
  portIn,
  type Side,
} from './conditions.ts';
import { Chain, type Rule, type Verdict } from './filter.ts';

/**
 * `defaults` is the text of `ip xfrm policy getdefault`: what happens to packets that no policy is for. IPsec comes after
 * netfilter on the way in, and is decided with the route on the way out, which netfilter's marks may change.
 */
export function readXfrm(policies: string, defaults: string): Chain[] {
  const records = policies.split(/^(?=src )/m).map(parseRecord);
  return (['in', 'out'] as const).map((direction) => {
    const blocked = new RegExp(`^\\s*${direction}:\\s+block`, 'm').test(defaults);
    const rules = records
      .filter((record) => record.direction === direction)
      .sort((a, b) => a.priority - b.priority) // the smallest number comes first
      .map(({ rule }) => rule);
    const base = {
      hook: direction === 'in' ? 'input' : 'output',
      priority: Number.MAX_SAFE_INTEGER,
      nat: false,
      policy: blocked ? 'drop' : 'accept',
      sees: always,
    } as const;
    return new Chain(`xfrm policy ${direction}`, base, () => rules);
  });
}

interface Record {
  readonly direction: Direction | undefined;
  readonly priority: number;
  readonly rule: Rule;
}

function parseRecord(text: string): Record {
  const words = text.trim().split(/\s+/);
  const after = (word: string) => words[words.indexOf(word) + 1];
  const [, direction] = text.match(/^\tdir (\S+)/m) ?? []; // of a socket's own policy: `socket out`
  const verdict = verdictOf(text);
  return {
    direction: direction === 'in' || direction === 'out' ? direction : undefined,
    priority: words.includes('priority') ? Number(after('priority')) : 0,
    rule: {
      text: words.join(' '),
      steps: [
        { kind: 'match', condition: selector(text) },
        { kind: 'verdict', verdict },
      ],
    },
  };
}

function verdictOf(text: string): Verdict {
  if (/^\tdir .* action block/m.test(text)) return { kind: 'drop', effect: 'drop' };
  const templates = text.split(/^\ttmpl /m).slice(1);
  if (templates.length === 0) return { kind: 'accept' };
  // An optional template changes packets only where there is a security association for them.
  const optional = templates.every((template) => /^\t\tlevel use/m.test(template));
  return { kind: 'change', effect: 'ipsec', ...(optional ? { unless: perhaps } : {}) };
}

/** The first line, `src 10.0.0.0/8 dst 10.0.0.2/32 proto udp dport 8472 dev eth0`, and the marks. */
function selector(text: string): Condition {
  const words = text.split('\n', 1)[0].trim().split(/\s+/);
  const conditions: Condition[] = [];
  for (let i = 0; i < words.length; i += 2) conditions.push(term(words[i], words[i + 1]));
  const mark = text.match(/^\tmark (\S+?)\/(\S+)/m);
  if (mark) conditions.push(markIn('mark', [[Number(mark[1]), Number(mark[1])]], Number(mark[2])));
  // A policy of an xfrm interface, which the NIC of a redirect uplink is not.
  const interfaceId = text.match(/^\tif_id (\S+)/m)?.[1];
  if (interfaceId !== undefined && Number(interfaceId) !== 0) conditions.push(never);
  return all(conditions);
}

function term(word: string, value: string): Condition {
  switch (word) {
    case 'src':
    case 'dst':
      return address(word === 'src' ? 'source' : 'destination', value);
    case 'proto':
      return constant(value === 'udp' || value === '17');
    case 'sport':
    case 'dport':
      return port(word === 'sport' ? 'source' : 'destination', value);
    case 'dev':
      return device(value);
    default:
      return perhaps;
  }
}

/** On the way in, it is the device of the route to this host: which that is depends on the kernel. */
function device(name: string): Condition {
  const goesOut = deviceIn('out', [name], '*');
  return (packets) => (packets.direction === 'in' ? 'perhaps' : goesOut(packets));
}

function address(side: Side, text: string): Condition {
  const range = addressRange(text);
  if (range === undefined) return perhaps;
  const condition = addressIn(side, [range]);
  const digits = range[0].length;
  return (packets) => (packets.local.length === digits ? condition(packets) : 'never');
}

function port(side: Side, text: string): Condition {
  return /^\d+$/.test(text) ? portIn(side, [[Number(text), Number(text)]]) : perhaps;
}
