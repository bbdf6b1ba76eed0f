// A kernel vxlan device and uvxlan's side by side, for the same frames: what leaves each for the network, and what comes back.
//
//   generator eth0 --- port0   kernel eth0 192.0.2.1 ----- eth0 192.0.2.2   sink
//   generator eth1 --- port0   ours   eth0 198.51.100.1 -- eth1 198.51.100.2
//
// Both devices are vx0, their only VTEP is the sink. port0 is there for tests that put it and vx0 into a bridge.

import type { TestContext } from 'node:test';
import { type Host, Network } from '../../cli/lab/network.ts';
import { eventually } from '../../cli/lab/process.ts';
import { tell, uvxlanUp } from '../../cli/lab/vtep.ts';
import { ASKER } from '../dataplane/discovery.ts';
import { mac } from '../dataplane/packet.ts';
import { resolved } from './pair.ts';
import { Listener, sendFrames } from './raw.ts';

const OUTER = 50;
/** Milliseconds without a reply after which no more are expected. */
const REST = 100;
/** What the MACs of the tests' frames begin with. */
const OURS = '0200000000';

export interface Outcome {
  /** Names of the frames that left for the network, in order; those that were changed, as hex. */
  sent: string[];
  /** What came back, as hex, in order, by ethertype. */
  replies: string[][];
}

export interface Side {
  host: Host;
  local: string;
  remote: string;
  /** Of the sink, where outer packets arrive. */
  nic: string;
}

export function build(t: TestContext): { network: Network; kernel: Side; ours: Side } {
  const network = Network.build(t, {
    hosts: { kernel: {}, ours: {}, sink: {}, generator: {} },
    links: [
      ['kernel eth0 192.0.2.1/24', 'sink eth0 192.0.2.2/24'],
      // Without offloads runs are seen as the packets that they are.
      ['ours eth0 198.51.100.1/24', 'sink eth1 198.51.100.2/24', { checksumOffload: false }],
      ['kernel port0', 'generator eth0'],
      ['ours port0', 'generator eth1'],
    ],
  });
  return {
    network,
    kernel: { host: network.host('kernel'), local: '192.0.2.1', remote: '192.0.2.2', nic: 'eth0' },
    ours: { host: network.host('ours'), local: '198.51.100.1', remote: '198.51.100.2', nic: 'eth1' },
  };
}

/** Makes the kernel's device, with the FDB and neighbours that the tests have. */
export function makeKernel({ host, local, remote }: Side, words: string): void {
  host.ip(`link add vx0 type vxlan id 5 local ${local} dev eth0 dstport 8472 nolearning ${words}`);
  host.ip('link set vx0 addrgenmode none');
  host.ip('link set vx0 up');
  host.bridge(`fdb append 00:00:00:00:00:00 dev vx0 dst ${remote}`);
}

/** The same of uvxlan. */
export async function makeOurs({ host, local, remote }: Side, words: string): Promise<void> {
  await uvxlanUp(host, `vx0 id 5 local ${local} dev eth0 dstport 8472 nolearning uplink redirect workers 1 ${words}`);
  host.ip('link set vx0 addrgenmode none');
  await tell(host, `fdb append 00:00:00:00:00:00 dev vx0 dst ${remote}`);
  await resolved(host, 'redirect');
}

/** Puts vx0 and port0 into a bridge. */
export function bridge({ host }: Side): void {
  host.ip('link add br0 type bridge mcast_snooping 0 stp_state 0');
  for (const port of ['vx0', 'port0']) host.ip(`link set ${port} master br0`);
  host.ip('link set br0 addrgenmode none up');
}

/**
 * Sends the frames, which are all different, on `device` of `from`, and takes down what becomes of them. Replies of the ethertypes come
 * to the same device, `least` of them.
 */
export async function outcome(
  side: Side,
  sink: Host,
  from: Host,
  device: string,
  frames: readonly Uint8Array[],
  types: readonly string[],
  least = 0,
): Promise<Outcome> {
  const outer = Listener.frames(sink, side.nic, '0800');
  const listeners = types.map((type) => Listener.frames(from, device, type));
  // The last one goes out in any case: when it has arrived, so have all.
  const last = Uint8Array.from([...mac(0x21), ...mac(ASKER), 0x88, 0xb5, ...Array(50).fill(0)]);
  sendFrames(from, device, [...frames, last]);
  const names = new Map([...frames, last].map((bytes, i) => [Buffer.from(bytes).toString('hex'), `frame ${i}`]));
  const sent = () =>
    outer.received
      .map((hex) => hex.slice(OUTER * 2))
      .filter((hex) => hex.slice(12, 22) === OURS)
      .map((hex) => names.get(hex) ?? hex);
  await eventually('the last frame arrives', () => sent().at(-1) === `frame ${frames.length}`);
  // From the MACs of the test: a bridge's host answers for its own address, too.
  const received = () => listeners.map((each) => each.received.filter((hex) => hex.slice(12, 22) === OURS));
  let replies: string[][] = [];
  let since = Date.now();
  await eventually('replies at rest', () => {
    const now = received();
    if (now.flat().length !== replies.flat().length) since = Date.now();
    replies = now;
    return replies.flat().length >= least && Date.now() - since >= REST;
  });
  for (const listener of [outer, ...listeners]) listener.stop();
  return { sent: sent(), replies };
}
