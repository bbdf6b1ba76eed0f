/**
 * Filters in tcpdump's words: the part of pcap-filter(7) that is about hosts, nets, ports, protocols, Ethernet addresses, VLAN tags and
 * lengths. There is no libpcap binding that installs without a compiler, and a filter has to run inside the workers, on
 * machines that have no tcpdump; so these words are parsed here. What is not known is refused, with its place, never ignored.
 *
 *     expression := term { (and | or) term }          equal precedence, from left to right, as in pcap-filter(7)
 *     term       := { not } ( "(" expression ")" | primitive )
 *     primitive  := [protocol] [direction] [type] ID | protocol | vlan [ID] | less N | greater N | [protocol] broadcast | multicast
 */
import { parseIp, parseMac } from '../../wire/address.ts';

export type Protocol = 'ether' | 'ip' | 'ip6' | 'arp' | 'rarp' | 'tcp' | 'udp' | 'sctp' | 'icmp' | 'icmp6';
export type Direction = 'src' | 'dst' | 'either' | 'both';

/** `tags`: how many VLAN tags the words before have matched, so that network headers are so much further in. */
export type Expression =
  | { readonly kind: 'and' | 'or'; readonly left: Expression; readonly right: Expression }
  | { readonly kind: 'not'; readonly of: Expression }
  | { readonly kind: 'protocol'; readonly protocol: Protocol; readonly tags: number }
  /** An IP protocol's number; `version` 0: of either. */
  | { readonly kind: 'next'; readonly version: 0 | 4 | 6; readonly number: number; readonly tags: number }
  | { readonly kind: 'type'; readonly type: number; readonly tags: number }
  | {
      readonly kind: 'net';
      readonly protocol: Protocol | undefined;
      readonly direction: Direction;
      /** 4 or 16 bytes. */
      readonly address: Uint8Array;
      readonly prefix: number;
      readonly tags: number;
    }
  | { readonly kind: 'mac'; readonly direction: Direction; readonly address: Uint8Array }
  | {
      readonly kind: 'port';
      readonly protocol: 'tcp' | 'udp' | 'sctp' | undefined;
      readonly direction: Direction;
      readonly from: number;
      readonly to: number;
      readonly tags: number;
    }
  | { readonly kind: 'vlan'; readonly id: number | undefined; readonly tags: number }
  | { readonly kind: 'length'; readonly least: number; readonly most: number }
  | { readonly kind: 'multicast'; readonly protocol: 'ether' | 'ip' | 'ip6'; readonly tags: number }
  | { readonly kind: 'broadcast' };

/** What is wrong with a filter, and where in its text. */
export class FilterError extends Error {}

const PROTOCOLS: readonly string[] = ['ether', 'ip', 'ip6', 'arp', 'rarp', 'tcp', 'udp', 'sctp', 'icmp', 'icmp6'];
const TYPES: readonly string[] = ['host', 'net', 'port', 'portrange', 'proto'];
const NUMBERS: Record<string, number> = {
  icmp: 1,
  igmp: 2,
  tcp: 6,
  udp: 17,
  esp: 50,
  ah: 51,
  icmp6: 58,
  vrrp: 112,
  sctp: 132,
};
const ETHERTYPES: Record<string, number> = { ip: 0x0800, arp: 0x0806, rarp: 0x8035, ip6: 0x86dd };
/** Words of pcap-filter(7) that are not taken, and what to do instead. */
const REFUSED: Record<string, string> = {
  gateway: 'give the MAC of the gateway: ether host MAC and not host ADDRESS',
  vxlan: 'the filter is about the inner frame; for the outer packet give --outer',
  geneve: 'uvxlan carries VXLAN',
  mpls: 'give its ethertype: ether proto 0x8847',
  pppoes: 'give its ethertype: ether proto 0x8864',
  len: 'write less N or greater N',
  inbound: 'the direction is in the capture',
  outbound: 'the direction is in the capture',
};
const DEEPEST = 100;

interface Token {
  readonly text: string;
  readonly at: number;
}

interface Qualifiers {
  protocol: Protocol | undefined;
  direction: Direction | undefined;
  type: string | undefined;
}

/** Throws FilterError. An empty text is undefined: everything passes. */
export function parseFilter(text: string): Expression | undefined {
  const tokens = [...text.matchAll(/[()!]|&&|\|\||[^\s()!&|]+|[&|]/g)].map(({ 0: token, index }) => ({
    text: token,
    at: index,
  }));
  return tokens.length === 0 ? undefined : new Parser(text, tokens).whole();
}

class Parser {
  readonly #text: string;
  readonly #tokens: readonly Token[];
  #next = 0;
  #depth = 0;
  #tags = 0;
  /** Of the last primitive: "host a or b" is "host a or host b". */
  #last: Qualifiers = { protocol: undefined, direction: undefined, type: undefined };

  constructor(text: string, tokens: readonly Token[]) {
    this.#text = text;
    this.#tokens = tokens;
  }

  whole(): Expression {
    const expression = this.#expression();
    const rest = this.#tokens[this.#next];
    if (rest)
      throw this.#wrong(
        rest,
        rest.text === ')' ? 'nothing was opened that it could close' : 'and or or is missing before it',
      );
    return expression;
  }

  #expression(): Expression {
    let left = this.#term();
    for (;;) {
      const kind = this.#takes('and', '&&') ? 'and' : this.#takes('or', '||') ? 'or' : undefined;
      if (kind === undefined) return left;
      left = { kind, left, right: this.#term() };
    }
  }

  #term(): Expression {
    const token = this.#peek();
    if (++this.#depth > DEEPEST) throw this.#wrong(token, 'nested too deeply');
    try {
      if (this.#takes('not', '!')) return { kind: 'not', of: this.#term() };
      if (!this.#takes('(')) return this.#primitive();
      const inner = this.#expression();
      if (!this.#takes(')')) throw this.#wrong(this.#peek(), 'the closing parenthesis is missing');
      return inner;
    } finally {
      this.#depth--;
    }
  }

  #primitive(): Expression {
    const first = this.#peek();
    if (Object.hasOwn(REFUSED, first.text)) throw this.#wrong(first, `not known here: ${REFUSED[first.text]}`);
    if (/[[\]=<>&|]/.test(first.text)) throw this.#wrong(first, 'expressions over bytes are not known here');
    if (this.#takes('vlan')) return this.#vlan();
    if (this.#takes('less')) return { kind: 'length', least: 0, most: this.#number(0xffffffff) };
    if (this.#takes('greater'))
      return { kind: 'length', least: this.#number(0xffffffff), most: Number.POSITIVE_INFINITY };
    const tags = this.#tags;
    const protocol = this.#oneOf(PROTOCOLS) as Protocol | undefined;
    if (this.#takes('broadcast')) return this.#group(first, protocol, 'broadcast');
    if (this.#takes('multicast')) return this.#group(first, protocol, 'multicast');
    const direction = this.#direction();
    const type = this.#oneOf(TYPES);
    if (protocol !== undefined && direction === undefined && type === undefined && !this.#startsId()) {
      if (protocol === 'ether')
        throw this.#wrong(first, 'host, src, dst, proto, broadcast or multicast is missing behind it');
      return { kind: 'protocol', protocol, tags };
    }
    const given = protocol !== undefined || direction !== undefined || type !== undefined;
    const qualifiers: Qualifiers = given ? { protocol, direction, type } : this.#last;
    if (
      !given &&
      this.#last.type === undefined &&
      this.#last.protocol === undefined &&
      this.#last.direction === undefined
    ) {
      if (!/^[\da-f.:]+(\/\d+)?$/i.test(first.text)) throw this.#wrong(first, 'not a word of a filter');
    }
    this.#last = qualifiers;
    return this.#qualified(qualifiers);
  }

  #qualified({ protocol, direction = 'either', type = 'host' }: Qualifiers): Expression {
    const token = this.#peek();
    switch (type) {
      case 'proto':
        return this.#proto(token, protocol, direction);
      case 'port':
      case 'portrange':
        return this.#port(token, protocol, direction, type);
      default:
        return this.#address(token, protocol, direction, type);
    }
  }

  #address(token: Token, protocol: Protocol | undefined, direction: Direction, type: string): Expression {
    const mac = parseMac(token.text);
    if (protocol === 'ether') {
      if (!mac || type === 'net') throw this.#wrong(token, 'a MAC address is wanted: 02:00:00:00:00:01');
      this.#next++;
      return { kind: 'mac', direction, address: mac };
    }
    if (mac) throw this.#wrong(token, 'a MAC address needs ether before it: ether host MAC');
    if (protocol !== undefined && !['ip', 'ip6', 'arp', 'rarp'].includes(protocol)) {
      throw this.#wrong(token, `${protocol} has no addresses: ${protocol} and host ADDRESS`);
    }
    const [address, prefix] = this.#network(token, type);
    if (address.length === 16 ? protocol !== undefined && protocol !== 'ip6' : protocol === 'ip6') {
      throw this.#wrong(token, `not an address of ${protocol}`);
    }
    this.#next++;
    return { kind: 'net', protocol, direction, address, prefix, tags: this.#tags };
  }

  /** An address and its prefix length: of a host all of it; a net may be short (10.1) or have a prefix (10.0.0.0/8). */
  #network(token: Token, type: string): [Uint8Array, number] {
    const [text, length, ...more] = token.text.split('/');
    const short = type === 'net' && /^\d+(\.\d+){0,2}$/.test(text) ? text.split('.') : undefined;
    const address = parseIp(short ? [...short, '0', '0', '0'].slice(0, 4).join('.') : text);
    if (!address || more.length > 0)
      throw this.#wrong(token, 'an IPv4 or IPv6 address is wanted: names are not looked up');
    const bits = address.length * 8;
    if (length === undefined) return [address, short ? short.length * 8 : bits];
    const prefix = /^\d+$/.test(length) ? Number(length) : -1;
    if (type === 'host' && prefix !== bits) throw this.#wrong(token, 'a host has no prefix length: write net');
    if (prefix < 0 || prefix > bits) throw this.#wrong(token, `a prefix length is 0 to ${bits}`);
    if (!isZeroBehind(address, prefix)) throw this.#wrong(token, `bits behind the prefix of ${prefix} are set`);
    return [address, prefix];
  }

  #port(token: Token, protocol: Protocol | undefined, direction: Direction, type: string): Expression {
    if (protocol !== undefined && protocol !== 'tcp' && protocol !== 'udp' && protocol !== 'sctp') {
      throw this.#wrong(token, `${protocol} has no ports`);
    }
    const pattern = type === 'port' ? /^(\d+)$/ : /^(\d+)(?:-(\d+))?$/;
    const [, low, high = low] = pattern.exec(token.text) ?? [];
    const [from, to] = [Number(low), Number(high)];
    if (low === undefined || from > 65535 || to > 65535) {
      throw this.#wrong(
        token,
        type === 'port' ? 'a port is a number up to 65535' : 'a range of ports is wanted: 8000-8080',
      );
    }
    this.#next++;
    return { kind: 'port', protocol, direction, from: Math.min(from, to), to: Math.max(from, to), tags: this.#tags };
  }

  #proto(token: Token, protocol: Protocol | undefined, direction: Direction): Expression {
    if (direction !== 'either') throw this.#wrong(token, 'a protocol has no direction');
    const tags = this.#tags;
    const name = token.text.replace(/^\\/, '');
    const names = protocol === 'ether' ? ETHERTYPES : NUMBERS;
    const number = Object.hasOwn(names, name) ? names[name] : /^(\d+|0x[\da-f]+)$/i.test(name) ? Number(name) : -1;
    const most = protocol === 'ether' ? 0xffff : 0xff;
    if (number < 0 || number > most)
      throw this.#wrong(token, `a protocol is a number up to ${most}, or one of ${Object.keys(names).join(', ')}`);
    if (protocol !== undefined && !['ether', 'ip', 'ip6'].includes(protocol))
      throw this.#wrong(token, `${protocol} carries no protocols`);
    this.#next++;
    if (protocol === 'ether') return { kind: 'type', type: number, tags };
    return { kind: 'next', version: protocol === 'ip' ? 4 : protocol === 'ip6' ? 6 : 0, number, tags };
  }

  #group(token: Token, protocol: Protocol | undefined, kind: 'broadcast' | 'multicast'): Expression {
    const tags = this.#tags;
    if (kind === 'multicast' && (protocol === 'ip' || protocol === 'ip6')) return { kind, protocol, tags };
    if (protocol !== undefined && protocol !== 'ether')
      throw this.#wrong(token, `${protocol} ${kind} is not known here`);
    return kind === 'multicast' ? { kind, protocol: 'ether', tags } : { kind };
  }

  #vlan(): Expression {
    const tags = this.#tags++;
    const token = this.#tokens[this.#next];
    if (!token || !/^\d/.test(token.text)) return { kind: 'vlan', id: undefined, tags };
    return { kind: 'vlan', id: this.#number(4095), tags };
  }

  #direction(): Direction | undefined {
    const first = this.#oneOf(['src', 'dst']) as 'src' | 'dst' | undefined;
    if (first === undefined) return undefined;
    const other = first === 'src' ? 'dst' : 'src';
    const [word, second] = this.#tokens.slice(this.#next, this.#next + 2);
    if (second?.text !== other || !/^(and|or|&&|\|\|)$/.test(word.text)) return first;
    // "src or dst port 80"; but "src 10.0.0.1 or dst ..." has its address between.
    this.#next += 2;
    return word.text === 'and' || word.text === '&&' ? 'both' : 'either';
  }

  /** Whether an address comes next, as in "ip 10.0.0.1"... which tcpdump takes for "ip host 10.0.0.1". */
  #startsId(): boolean {
    const token = this.#tokens[this.#next];
    return token !== undefined && /^[\da-f.:]+(\/\d+)?$/i.test(token.text) && /[\d:]/.test(token.text);
  }

  #number(most: number): number {
    const token = this.#peek();
    if (!/^\d+$/.test(token.text) || Number(token.text) > most)
      throw this.#wrong(token, `a number up to ${most} is wanted`);
    this.#next++;
    return Number(token.text);
  }

  #oneOf(words: readonly string[]): string | undefined {
    const token = this.#tokens[this.#next];
    if (!token || !words.includes(token.text)) return undefined;
    this.#next++;
    return token.text;
  }

  #takes(...words: readonly string[]): boolean {
    return this.#oneOf(words) !== undefined;
  }

  #peek(): Token {
    return this.#tokens[this.#next] ?? { text: '', at: this.#text.length };
  }

  #wrong({ text, at }: Token, message: string): FilterError {
    const what = text === '' ? 'the filter ends too early' : `"${text}" at character ${at + 1} of the filter`;
    return new FilterError(`${what}: ${message}`);
  }
}

function isZeroBehind(address: Uint8Array, prefix: number): boolean {
  return address.every((byte, i) => (byte & (0xff >> Math.min(8, Math.max(0, prefix - i * 8)))) === 0);
}
