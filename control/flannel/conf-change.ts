import type { FaultLog } from './faults.ts';
import { type NetConf, parseNetConf } from './net-conf.ts';

/**
 * The network configuration is read at the start, as by flanneld; what changes in it afterwards is told, once while it lasts. `where` it
 * stands begins the line.
 */
export function compareConf(faults: FaultLog, text: string, where: string, conf: NetConf): void {
  let problem = 'has changed, which takes a restart';
  try {
    if (JSON.stringify(parseNetConf(text, where).conf) === JSON.stringify(conf)) {
      faults.clear('net-conf', `${where} is right again`);
      return;
    }
  } catch (error) {
    problem = `is wrong now (${(error as Error).message.split('\n')[0]})`;
  }
  faults.note('net_conf', 'net-conf', `${where} ${problem}: going on with what it was`);
}
