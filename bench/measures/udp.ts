/** Datagrams: the highest rate that gets through, what arrives of too many, and what one costs. */
import { type IperfResult, iperf3 } from '../../cli/lab/measure.ts';
import { cpuSecondsOf } from '../machine.ts';
import type { Pair } from '../peers/peers.ts';
import { highestRate, type Search, type Trial } from '../search.ts';
import type { Measure } from './measure.ts';

/** The share that a rate may lose. */
const MOST_LOST = 0.001;
const SIZES = [64, 256, 512, 1024, 1400];
/** Datagrams a second: every overlay but `raw` and Open vSwitch carries as many. */
const MODEST_RATE = 50_000;

/** Sends datagrams of `length` bytes at `rate` a second, 0: as fast as iperf3 can, which then takes whole seconds. */
async function send({ left, right }: Pair, length: number, rate: number, seconds: number): Promise<IperfResult> {
  const end = rate === 0 ? { seconds: Math.ceil(seconds) } : { writes: Math.ceil(rate * seconds), seconds };
  const options = { ...end, udp: true, length, bitrate: Math.round(rate * length * 8) };
  return iperf3(left.host, right.host, right.addresses[0]!, options);
}

function toTrial({ packets, lost, loss, seconds }: IperfResult): Trial {
  return { offered: packets / seconds / 1e3, delivered: (packets - lost) / seconds / 1e3, loss };
}

/** Why a search has no rate. */
export function noRate({ trials, lowest }: Pick<Search, 'trials' | 'lowest'>): string {
  return `each of ${trials} trials, down to ${lowest.toFixed(1)} kpps, lost more than ${MOST_LOST * 100} %`;
}

function udp(length: number): Measure {
  const name = `udp${length}`;
  const title = `UDP ${length} B`;
  const unit = 'kpps';
  const key = (what: string) => `${name}.${what}`;
  return {
    name,
    about: `${title}: highest rate with at most 0.1 % lost, what arrives at twice that and at as much as the sender can`,
    mtu: 1500,
    quantities: [
      { key: key('rate'), title: `${title}, at most 0.1 % lost`, unit, better: 'more' },
      { key: key('twice'), title: `${title}, delivered at twice that`, unit, better: 'more' },
      { key: key('flood'), title: `${title}, delivered of a flood`, unit, better: 'more' },
    ],
    async run(pair, { trialSeconds, trials }) {
      const trial = async (rate: number) => toTrial(await send(pair, length, rate * 1e3, trialSeconds));
      const search = await highestRate(trial, { trials, limit: MOST_LOST });
      const { rate, flood } = search;
      const arrived = { [key('flood')]: flood.delivered };
      if (rate === undefined) {
        const failures = [{ keys: [key('rate'), key('twice')], why: noRate(search) }];
        return { values: arrived, failures };
      }
      // The sender cannot do twice as much: then the flood is what comes nearest.
      const twice = rate * 2 < flood.offered ? (await trial(rate * 2)).delivered : flood.delivered;
      return { values: { [key('rate')]: rate, [key('twice')]: twice, ...arrived } };
    },
  };
}

export const udpMeasures: readonly Measure[] = SIZES.map(udp);

/** At a rate that costs all of them something and overloads few, so that the cost of a packet can be told. */
export const packetCost: Measure = {
  name: 'packets',
  about: `UDP 64 B at ${MODEST_RATE} a second: CPU seconds of everything for a million of them, and loss`,
  mtu: 1500,
  quantities: [
    { key: 'packets.cpu', title: 'UDP 64 B at 50 kpps, CPU', unit: 's/Mpkt', better: 'less' },
    { key: 'packets.lost', title: 'UDP 64 B at 50 kpps, lost', unit: '%', better: 'less', noRatio: true },
  ],
  async run(pair, { seconds }) {
    const { result, seconds: cpu } = await cpuSecondsOf(() => send(pair, 64, MODEST_RATE, seconds));
    const delivered = result.packets - result.lost;
    if (delivered === 0) throw new Error('nothing arrived');
    return { values: { 'packets.cpu': cpu / (delivered / 1e6), 'packets.lost': result.loss * 100 } };
  },
};
