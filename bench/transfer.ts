/** Is what arrives what was sent? A bulk transfer whose SHA-256 is compared, over each uplink, both ways, with packets lost on the way, too. */
import { bulkTransfer } from '../cli/lab/measure.ts';
import { Network, type Owner } from '../cli/lab/network.ts';
import { introduce, kernelVtep, uvxlanVtep, type Vtep } from '../cli/lab/vtep.ts';

/** Lost on the wire, 0 to 1: of whole super-packets, where the link carries those. */
const LOSS = 0.01;
const UPLINKS = ['redirect', 'udp'] as const;
const SECONDS_A_MEGABYTE = 0.2;

/**
 * Left on uvxlan, right on the kernel's VXLAN, between them a router, which loses packets when asked to: with netfilter's statistic match, so
 * that what is lost is encapsulated packets.
 */
export async function lossyPair(owner: Owner, uplink: string, loss: number): Promise<{ left: Vtep; right: Vtep }> {
  const network = Network.build(owner, {
    hosts: { left: {}, right: {}, router: { forward: true } },
    links: [
      ['left eth0 192.0.2.1/24', 'router eth0 192.0.2.254/24'],
      ['router eth1 203.0.113.254/24', 'right eth0 203.0.113.1/24'],
    ],
    routes: { left: ['default via 192.0.2.254'], right: ['default via 203.0.113.254'] },
  });
  if (loss > 0) {
    network.host('router').exec(`iptables -A FORWARD -m statistic --mode random --probability ${loss} -j DROP`);
  }
  const left = await uvxlanVtep(network.host('left'), {
    ...{ local: '192.0.2.1', addresses: '198.51.100.1/24', mac: '02:00:00:00:00:01' },
    words: `id 1 dev eth0 dstport 8472 nolearning uplink ${uplink}`,
  });
  const right = kernelVtep(network.host('right'), {
    ...{ local: '203.0.113.1', addresses: '198.51.100.2/24', mac: '02:00:00:00:00:02' },
  });
  await introduce(left, right);
  return { left, right };
}

/** Prints a line for each transfer; returns whether all of them were whole. */
export async function transfer(megabytes: number): Promise<boolean> {
  let whole = true;
  for (const uplink of UPLINKS) {
    for (const loss of [0, LOSS]) {
      const ends: (() => void)[] = [];
      try {
        const { left, right } = await lossyPair({ after: (end) => ends.push(end) }, uplink, loss);
        for (const [from, to] of [
          [left, right],
          [right, left],
        ] as const) {
          const what = `${uplink}, ${from.host.name} to ${to.host.name}, ${loss * 100} % lost:`;
          try {
            const timeout = (30 + megabytes * SECONDS_A_MEGABYTE) * 1000;
            const done = await bulkTransfer(from.host, to.host, to.addresses[0]!, megabytes * 1e6, timeout);
            console.log(`${what} ${megabytes} MB whole, ${(done.bitsPerSecond / 1e9).toFixed(2)} Gbit/s`);
          } catch (error) {
            whole = false;
            console.log(`${what} ${(error as Error).message}`);
          }
        }
      } finally {
        for (const end of ends) end();
      }
    }
  }
  return whole;
}
