/**
 * What each tier of offloads gives: uvxlan without what an older kernel lacks, at both ends of a veth, beside the kernel's own VXLAN.
 *
 *     npm run build && sudo node dist/bench/tiers.js [ROUNDS [SECONDS]]     default: 3 rounds of 2 seconds; prints the table of docs/kernels.md
 *
 * Each measurement stands beside one of the kernel's, made within seconds of it; printed are the medians, and those of the ratios.
 */
import os from 'node:os';
import { iperf3 } from '../cli/lab/measure.ts';
import { Network } from '../cli/lab/network.ts';
import { introduce, kernelVtep, uvxlanVtep } from '../cli/lab/vtep.ts';

const [rounds = 3, seconds = 2] = process.argv.slice(2).map(Number);

/** Uplink, and what is hidden from it. */
const TIERS = [
  ['redirect', ''],
  ['redirect', 'tcx'],
  ['redirect', 'gro'],
  ['redirect', 'uso'],
  ['redirect', 'tunnel-gso'],
  ['redirect', 'tunnel-gso,uso'],
  ['redirect', 'tunnel-gso,uso,udp-gso,gro,tcx'],
  ['udp', ''],
  ['udp', 'uso'],
  ['udp', 'gro'],
  ['udp', 'udp-gso'],
  ['udp', 'uso,udp-gso,gro'],
] as const;

interface Result {
  tcp: number;
  udp: number;
}

/** Gbit/s of one TCP stream, and thousand datagrams of 64 bytes a second that arrive when more are offered. */
async function measure(words?: string): Promise<Result> {
  const ends: (() => void)[] = [];
  try {
    const network = Network.build(
      { after: (remove) => ends.push(remove) },
      { hosts: { left: {}, right: {} }, links: [['left eth0 192.0.2.1/24', 'right eth0 192.0.2.2/24']] },
    );
    const [left, right] = await Promise.all(
      ['left', 'right'].map(async (name, i) => {
        const host = network.host(name);
        const place = {
          local: `192.0.2.${i + 1}`,
          addresses: `198.51.100.${i + 1}/24`,
          mac: `02:00:00:00:00:0${i + 1}`,
        };
        return words === undefined ? kernelVtep(host, place) : uvxlanVtep(host, { ...place, words });
      }),
    );
    await introduce(left!, right!);
    const run = (options: Parameters<typeof iperf3>[3]) => iperf3(left!.host, right!.host, '198.51.100.2', options);
    await run({ seconds: 1 }); // V8 compiles what is hot
    const tcp = await run({ seconds });
    const udp = await run({ seconds, udp: true, length: 64, bitrate: 0 });
    return { tcp: tcp.bitsPerSecond / 1e9, udp: udp.bitsPerSecond / 8 / 64 / 1e3 };
  } finally {
    for (const end of ends) end();
  }
}

function median(numbers: readonly number[]): number {
  return [...numbers].sort((a, b) => a - b)[numbers.length >> 1]!;
}

const results = TIERS.map((): { own: Result; kernel: Result }[] => []);
for (let round = 1; round <= rounds; round++) {
  for (const [index, [uplink, without]] of TIERS.entries()) {
    process.stderr.write(`round ${round} of ${rounds}: ${uplink} ${without}\n`);
    const hidden = without === '' ? '' : `--without ${without}`;
    const kernel = await measure();
    const own = await measure(`id 1 dev eth0 dstport 8472 nolearning uplink ${uplink} ${hidden}`);
    results[index]!.push({ own, kernel });
  }
}
console.log(`Node ${process.version}, Linux ${os.release()}, ${os.availableParallelism()} x ${os.cpus()[0]!.model}`);
console.log(`${rounds} rounds of ${seconds} s\n`);
console.log('| uplink | `--without` | TCP 1 stream, Gbit/s | of the kernel | UDP 64 B, kpps | of the kernel |');
console.log('|---|---|---|---|---|---|');
for (const [index, [uplink, without]] of TIERS.entries()) {
  const cells = (['tcp', 'udp'] as const).flatMap((key) => {
    const rows = results[index]!;
    const value = median(rows.map(({ own }) => own[key]));
    return [
      value.toFixed(key === 'tcp' ? 1 : 0),
      median(rows.map(({ own, kernel }) => own[key] / kernel[key])).toFixed(2),
    ];
  });
  console.log(`| ${uplink} | ${without || '(nothing)'} | ${cells.join(' | ')} |`);
}
process.exit();
