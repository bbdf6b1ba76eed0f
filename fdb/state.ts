/** The state of an FDB entry, kept in its cell as the kernel's NUD_ bits (linux/neighbour.h). */
const NUD_REACHABLE = 0x02;
const NUD_NOARP = 0x40;
const NUD_PERMANENT = 0x80;
/** States that neither age nor move: static and permanent. */
export const NUD_FIXED = NUD_NOARP | NUD_PERMANENT;

/** NTF_EXT_LEARNED, kept in the bits above: somebody else learned it, so that it does not age. */
export const NTF_EXT_LEARNED = 0x10 << 8;

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

/** Beside them in the cell: the MAC is a router's (NTF_ROUTER, linux/neighbour.h, shifted by 8), for route short-circuit and `proxy`. */
export const ROUTER = 0x8000;
