/** Bulk TCP: how much gets through, each way, and what it costs. */
import { iperf3 } from '../../cli/lab/measure.ts';
import { cpuSecondsOf } from '../machine.ts';
import type { Measure, Quantity } from './measure.ts';

function tcp(streams: number, name = `tcp${streams}`, mtu: Measure['mtu'] = 1500): Measure {
  const title = `TCP ${streams} ${streams > 1 ? 'streams' : 'stream'}${mtu === 1500 ? '' : `, MTU ${mtu}`}`;
  const quantities: Quantity[] = [
    { key: name, title, unit: 'Gbit/s', better: 'more' },
    { key: `${name}.back`, title: `${title}, right to left`, unit: 'Gbit/s', better: 'more' },
    { key: `${name}.cpu`, title: `${title}, CPU`, unit: 's/GB', better: 'less' },
  ];
  return {
    name,
    about: `${title}: payload each way; CPU seconds of everything for 10^9 bytes from left to right`,
    mtu,
    quantities,
    async run({ left, right }, { seconds }) {
      const run = (reverse: boolean) =>
        iperf3(left.host, right.host, right.addresses[0]!, { seconds, streams, reverse });
      const { result, seconds: cpu } = await cpuSecondsOf(() => run(false));
      const back = await run(true);
      return {
        values: {
          [name]: result.bitsPerSecond / 1e9,
          [`${name}.back`]: back.bitsPerSecond / 1e9,
          [`${name}.cpu`]: cpu / (result.bytes / 1e9),
        },
      };
    },
  };
}

export const tcpMeasures: readonly Measure[] = [tcp(1), tcp(4), tcp(16)];
export const jumbo = tcp(1, 'jumbo', 9000);
