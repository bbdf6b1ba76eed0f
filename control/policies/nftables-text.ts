/** A rule of nftables in nft's words, as well as they follow from its JSON: short enough for a log, and without counters. */

export type Expression = unknown;

/** The key of an object of one key; the empty string for anything else. */
export function keyOf(expression: Expression): string {
  if (typeof expression !== 'object' || expression === null || Array.isArray(expression)) return '';
  return Object.keys(expression)[0] ?? '';
}

const LONGEST = 160;
const MANY_ELEMENTS = 4;

export function ruleText(expressions: readonly Expression[], comment?: string): string {
  const words = expressions.map(statement).filter((word) => word !== '');
  if (comment !== undefined) words.push(`comment "${comment}"`);
  const text = words.join(' ');
  return text.length > LONGEST ? `${text.slice(0, LONGEST)}...` : text;
}

function statement(expression: Expression): string {
  const key = keyOf(expression);
  const value = (expression as Record<string, Expression>)[key] as Record<string, Expression> | null;
  switch (key) {
    case 'match': {
      const { op, left, right } = value as { op: string; left: Expression; right: Expression };
      return [term(left), op === '==' || op === 'in' ? '' : op, term(right)].filter((word) => word !== '').join(' ');
    }
    case 'vmap':
      return `${term(value!.key)} vmap ${term(value!.data)}`;
    case 'mangle':
      return `${term(value!.key)} set ${term(value!.value)}`;
    case 'jump':
    case 'goto':
      return `${key} ${value!.target}`;
    case 'snat':
    case 'dnat':
    case 'redirect':
    case 'masquerade':
    case 'tproxy': {
      const to = `${value?.addr === undefined ? '' : term(value.addr)}${value?.port === undefined ? '' : `:${term(value.port)}`}`;
      return to === '' ? key : `${key} to ${to}`;
    }
    case 'dup':
      return `dup to ${term(value!.addr)}`;
    case 'fwd':
      return `fwd to ${term(value!.dev)}`;
    case 'limit':
      return `limit rate ${value!.inv ? 'over ' : ''}${value!.rate}/${value!.per}`;
    case 'xt':
      return `xt ${value?.type ?? 'extension'} ${value?.name ?? 'unknown'}`;
    case 'set':
      return `${value!.op} ${value!.set} { ${term(value!.elem)} }`;
    case 'counter':
      return '';
    default:
      return key;
  }
}

function term(expression: Expression): string {
  if (expression === true) return 'exists';
  if (expression === false) return 'missing';
  if (Array.isArray(expression)) return expression.map(term).join(',');
  if (typeof expression !== 'object' || expression === null) return String(expression);
  const key = keyOf(expression);
  const value = (expression as Record<string, Expression>)[key] as Record<string, Expression> & Expression[];
  switch (key) {
    case 'payload':
      return value.protocol === undefined
        ? `@${value.base},${value.offset},${value.len}`
        : `${value.protocol} ${value.field}`;
    case 'ct':
      return ['ct', value.dir, value.key].filter(Boolean).join(' ');
    case 'fib':
      return `fib ${(value.flags as string[]).join(' . ')} ${value.result}`;
    case 'prefix':
      return `${value.addr}/${value.len}`;
    case 'range':
      return `${term(value[0])}-${term(value[1])}`;
    case 'concat':
      return value.map(term).join(' . ');
    case 'elem':
      return term(value.val);
    case 'set':
      return elements([value].flat() as Expression[]);
    case '&':
    case '|':
    case '^':
      return `${term(value[0])} ${key} ${term(value[1])}`;
    default:
      return typeof value?.key === 'string' ? `${key} ${value.key}` : key;
  }
}

function elements(values: readonly Expression[]): string {
  const shown = values
    .slice(0, MANY_ELEMENTS)
    .map((value) => (Array.isArray(value) ? `${term(value[0])} : ${statement(value[1])}` : term(value)));
  return `{ ${shown.join(', ')}${values.length > MANY_ELEMENTS ? ', ...' : ''} }`;
}
