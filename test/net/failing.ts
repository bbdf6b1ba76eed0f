// A daemon whose workers fail on demand: node failing.js WORDS..., as for `uvxlan up`. At every SIGUSR2 the next worker in turn
// fails, once.

import { Daemon } from '../../control/daemon.ts';
import { parseDevice } from '../../control/words.ts';

const { device } = parseDevice(process.argv.slice(2));
const daemon = new Daemon({ devices: [device], without: [], log: (line) => console.log(`uvxlan: ${line}`) });
let next = 0;
process.on('SIGUSR2', () => daemon.failWorker(next++ % (device.workers ?? 1)));
process.once('SIGTERM', () => void daemon.stop());
await daemon.start();
