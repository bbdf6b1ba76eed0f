import assert from 'node:assert/strict';
import test from 'node:test';
import * as vxlan from '../../wire/vxlan.ts';
import { hex, placed, written } from './canvas.ts';

test('writes a header', () => {
  assert.equal(
    written(8, (b, at) => vxlan.writeVxlanHeader(b, at, 0x123456)),
    '0800000012345600',
  );
  assert.equal(
    written(8, (b, at) => vxlan.writeVxlanHeader(b, at, vxlan.VNI_MAX)),
    '08000000ffffff00',
  );
});

test('reads the VNI whatever the reserved bits are', () => {
  const bytes = placed(hex('ffffffff 123456 ff'), 1);
  assert.equal(vxlan.vxlanVni(bytes, 1), 0x123456);
});

test('encapsulation takes 50 bytes, and 70 on IPv6', () => {
  assert.equal(vxlan.OUTER_LENGTH_IPV4, 50);
  assert.equal(vxlan.OUTER_LENGTH_IPV6, 70);
});
