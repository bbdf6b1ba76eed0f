/** What workers report of `l2miss` and `l3miss`, as events: where a control plane fills the tables on demand, these ask it to. */
import {
  REPORT_COUNT,
  REPORT_L2MISS,
  REPORT_L3MISS,
  REPORT_MAC_HIGH,
  REPORT_MAC_LOW,
  REPORT_TYPE,
  reportAddress,
} from '../dataplane/reports.ts';
import { formatIp, formatMac, macBytes } from '../wire/address.ts';
import type { Events } from './events.ts';

/** Tells of the miss on device `ifname` that a report is about; whether it was about one. `count`: packets that missed since the last. */
export function takeMiss(events: Events, ifname: string, words: Int32Array, record: number): boolean {
  const type = words[record + REPORT_TYPE];
  if (type !== REPORT_L2MISS && type !== REPORT_L3MISS) return false;
  const count = words[record + REPORT_COUNT];
  if (type === REPORT_L3MISS) {
    events.emit('miss', 'l3miss', ifname, { dst: formatIp(reportAddress(words, record)), count });
    return true;
  }
  const mac = formatMac(macBytes(words[record + REPORT_MAC_HIGH], words[record + REPORT_MAC_LOW]));
  events.emit('miss', 'l2miss', ifname, { mac, count });
  return true;
}
