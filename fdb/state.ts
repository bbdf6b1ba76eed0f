/** The state of an FDB entry, kept in its cell as the kernel's NUD_ bits (linux/neighbour.h). */
const NUD_REACHABLE = 0x02;
const NUD_NOARP = 0x40;
const NUD_PERMANENT = 0x80;
/** States that neither age nor move: static and permanent. */
export const NUD_FIXED = NUD_NOARP | NUD_PERMANENT;

// Flags of an entry, in the cell's bits above the state: the kernel's NTF_ bits shifted by 8.
/** Somebody else learned it: it does not age, and does not take the place of what was configured. */
export const NTF_EXT_LEARNED = 0x10 << 8;
/** The MAC is a router's, for route short-circuit and `proxy`. */
export const ROUTER = 0x80 << 8;
/** It was not learned here (NTF_VXLAN_ADDED_BY_USER). */
export const ADDED_BY_USER = 0x100 << 8;

/** `bridge fdb`'s words for flags, in the order in which it prints them. */
export type FdbFlag = 'router' | 'extern_learn';
const FLAG_BITS: readonly [FdbFlag, number][] = [
  ['router', ROUTER],
  ['extern_learn', NTF_EXT_LEARNED],
];

export function flagBits(flags: readonly FdbFlag[]): number {
  return FLAG_BITS.reduce((bits, [flag, bit]) => (flags.includes(flag) ? bits | bit : bits), 0);
}

export function flagNames(bits: number): FdbFlag[] {
  return FLAG_BITS.filter(([, bit]) => (bits & bit) !== 0).map(([flag]) => flag);
}

/** `bridge fdb`'s words. Dynamic entries age, the others are only removed by hand. */
export type FdbState = 'permanent' | 'static' | 'dynamic';

/** The bits that iproute2 sends for a word (bridge/fdb.c: fdb_modify). */
export const STATE_BITS: Readonly<Record<FdbState, number>> = {
  permanent: NUD_PERMANENT,
  static: NUD_NOARP | NUD_REACHABLE,
  dynamic: NUD_REACHABLE,
};

/** Of an entry that was learned. */
export const LEARNED = NUD_REACHABLE;

/** Whether the entry goes when its MAC is not heard. */
export function isDynamic(bits: number): boolean {
  return (bits & (NUD_FIXED | NTF_EXT_LEARNED)) === 0;
}

/** The word that iproute2 prints for them: none for dynamic (bridge/fdb.c: state_n2a). */
export function stateText(bits: number): 'permanent' | 'static' | '' {
  if (bits & NUD_PERMANENT) return 'permanent';
  return bits & NUD_NOARP ? 'static' : '';
}
