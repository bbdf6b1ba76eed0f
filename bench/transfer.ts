/** Is what arrives what was sent? A bulk transfer whose SHA-256 is compared, over each uplink, both ways, with packets lost on the way, too. */
import { bulkTransfer } from '../cli/lab/measure.ts';
import { Network, type Owner } from '../cli/lab/network.ts';
import { introduce, kernelVtep, uvxlanVtep, type Vtep } from '../cli/lab/vtep.ts';
import { UPLINKS } from './peers/uvxlan.ts';
import { sentence } from './rounds.ts';

/** Lost on the wire, 0 to 1: of whole super-packets, where the link carries those. */
const LOSS = 0.01;
/** `auto` is one of the others. */
const TRIED = Object.keys(UPLINKS).filter((name) => name !== 'auto');
/** Of the slowest, `raw` with loss, some times what it takes. */
const SECONDS_A_MEGABYTE = 0.5;

/**
 * Left on uvxlan with one of UPLINKS, right on the kernel's VXLAN, between them a router, which loses packets when asked to: with
 * netfilter's statistic match, so that what is lost is encapsulated packets.
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
    words: `id 1 dev eth0 dstport 8472 nolearning ${UPLINKS[uplink]!.words}`,
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
  for (const uplink of TRIED) {
    for (const loss of [0, LOSS]) whole = (await bothWays(uplink, loss, megabytes)) && whole;
  }
  return whole;
}

async function bothWays(uplink: string, loss: number, megabytes: number): Promise<boolean> {
  const ends: (() => void)[] = [];
  const lost = `${loss * 100} % lost`;
  try {
    const { left, right } = await lossyPair({ after: (end) => ends.push(end) }, uplink, loss);
    const there = await oneWay(`${uplink}, left to right, ${lost}`, left, right, megabytes);
    const back = await oneWay(`${uplink}, right to left, ${lost}`, right, left, megabytes);
    return there && back;
  } catch (error) {
    console.log(`${uplink}, ${lost}: ${sentence(error)}`);
    return false;
  } finally {
    for (const end of ends) end();
  }
}

async function oneWay(what: string, from: Vtep, to: Vtep, megabytes: number): Promise<boolean> {
  const timeout = (30 + megabytes * SECONDS_A_MEGABYTE) * 1000;
  try {
    const { bitsPerSecond } = await bulkTransfer(from.host, to.host, to.addresses[0]!, megabytes * 1e6, timeout);
    console.log(`${what}: ${megabytes} MB whole, ${(bitsPerSecond / 1e9).toFixed(2)} Gbit/s`);
    return true;
  } catch (error) {
    console.log(`${what}: ${sentence(error)}`);
    return false;
  }
}
