/** VXLAN, with the bits of the Group Policy extension, and the frame that it carries. */
import { VXLAN_FLAGS, VXLAN_HEADER, VXLAN_I, VXLAN_VNI } from '../wire/vxlan.ts';
import type { Dissection, Extra } from './dissection.ts';
import { dissectEthernet } from './ethernet.ts';

const RFC = 'RFC 7348, 5';
const GBP = 'draft-smith-vxlan-group-policy-05, 2.1';
const VXLAN_G = 0x80;

export function dissectVxlan(d: Dissection, vxlan: number, end: number): void {
  if (!d.holds('VXLAN', vxlan, end, VXLAN_HEADER)) return;
  const { bytes } = d;
  const flags = bytes[vxlan + VXLAN_FLAGS];
  const isPolicy = (flags & VXLAN_G) !== 0;
  const header = d.header('VXLAN', vxlan, VXLAN_HEADER, RFC);
  const reserved = (value: number): Extra =>
    value === 0 ? {} : { meaning: 'set: an extension, which receivers that do not know it may refuse' };
  const meaning = isPolicy ? 'a group policy follows' : undefined;
  header.bits('G', VXLAN_FLAGS, 0, 1, { meaning, reference: GBP });
  header.bits('reserved flags', VXLAN_FLAGS, 1, 3, reserved(flags & 0x70));
  const isValid = (flags & VXLAN_I) !== 0;
  header.bits('I', VXLAN_FLAGS, 4, 1, isValid ? { meaning: 'the VNI is valid' } : { problem: 'has to be 1' });
  header.bits('reserved flags', VXLAN_FLAGS, 5, 3, reserved(flags & 0x07));
  if (isPolicy) {
    const policy = bytes[vxlan + 1];
    header.bits('reserved', 1, 0, 1);
    header.bits('D', 1, 1, 1, { meaning: policy & 0x40 ? "don't learn" : undefined, reference: GBP });
    header.bits('reserved', 1, 2, 2);
    header.bits('A', 1, 4, 1, { meaning: policy & 0x08 ? 'policy was applied' : undefined, reference: GBP });
    header.bits('reserved', 1, 5, 3);
    header.number('group policy', 2, 2, { reference: GBP });
  } else {
    header.number('reserved', 1, 3, reserved((bytes[vxlan + 1] | bytes[vxlan + 2] | bytes[vxlan + 3]) & 0xff));
  }
  header.number('VNI', VXLAN_VNI, 3, { meaning: 'the overlay network' });
  header.number('reserved', VXLAN_VNI + 3, 1, reserved(bytes[vxlan + VXLAN_VNI + 3]));
  d.deeper(vxlan + VXLAN_HEADER, end, () => dissectEthernet(d, vxlan + VXLAN_HEADER, end));
}
