/** What a packet went through, in the order in which it happened. Pure. */
import type { PacketShape } from '../control/web/shapes.ts';

export interface Step {
  readonly text: string;
  /** Bytes from here on are there at this step. */
  readonly from: number;
}

const SENT = 'Sent on the NIC.';

/** None of a packet without VXLAN. One that was dropped goes no further than that. */
export function stepsOf({ layers, direction, comments }: PacketShape): Step[] {
  const inner = layers.find(({ depth }) => depth === 1);
  if (!inner) return [];
  const outside = layers.filter(({ depth, offset }) => depth === 0 && offset < inner.offset);
  const decision = comments.find((comment) => comment.startsWith('to '));
  const dropped = comments.find((comment) => comment.startsWith('dropped'));
  const end = dropped && { text: `It was ${dropped}`, from: 0 };
  const off = outside.map(({ title, offset, length }, i) => ({
    text: `${title}: checked, and taken off (${length} bytes).`,
    from: outside[i + 1]?.offset ?? offset + length,
  }));
  if (direction === 'in') {
    const arrived = { text: 'The packet arrives on the NIC.', from: 0 };
    if (end) return [arrived, end];
    return [
      arrived,
      ...off,
      { text: 'The inner frame goes to the device of this VNI, as it was sent.', from: inner.offset },
    ];
  }
  const other = layers
    .find(({ title }) => title.startsWith('outer IPv'))
    ?.fields.find(({ name }) => name === 'destination');
  const made = [
    { text: 'The frame arrives on the device, from the host or a pod.', from: inner.offset },
    { text: `Its destination MAC is looked up in the FDB${decision ? `: ${decision}` : ''}.`, from: inner.offset },
    ...outside
      .toReversed()
      .map(({ title, offset, length }) => ({ text: `${title} in front: ${length} bytes.`, from: offset })),
  ];
  if (end) return [...made, end];
  return [
    ...made,
    { text: SENT, from: 0 },
    { text: `On the other node, ${other?.value ?? ''}: the packet arrives on the NIC.`, from: 0 },
    ...off.map(({ text, from }) => ({ text: `On the other node: ${text}`, from })),
    { text: 'On the other node: the inner frame goes to the device of this VNI, as it was sent.', from: inner.offset },
  ];
}

/** The step at which the packet is as it was on the wire, and where it ends when it was dropped. */
export function shownFirst(steps: readonly Step[]): number {
  const sent = steps.findIndex(({ text }) => text === SENT);
  if (sent >= 0) return sent;
  return steps.at(-1)!.from === 0 ? steps.length - 1 : 0;
}
