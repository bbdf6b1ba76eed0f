import assert from 'node:assert/strict';
import os from 'node:os';
import test from 'node:test';
import { attachAdvice, openAdvice } from '../../system/tun.ts';

const { EACCES, EBUSY, EINVAL, ENODEV, ENOENT, EPERM } = os.constants.errno;

test('advice about /dev/net/tun tells a missing permission from a missing driver', () => {
  assert.match(openAdvice(EACCES), /may not be opened by this user: run as root/);
  assert.match(openAdvice(EPERM), /container may not use .* --device/);
  for (const errno of [ENOENT, ENODEV]) {
    assert.match(openAdvice(errno), /modprobe tun; in a container mount \/dev\/net\/tun/);
  }
});

test('a device that has the name already is not to be deleted: it may be the NIC', () => {
  const advice = attachAdvice('eth0', EBUSY);
  assert.match(advice, /a device of that name exists: choose another name .*ip link show eth0/);
  assert.doesNotMatch(advice, /link del/);
  assert.match(attachAdvice('vx1', EPERM), /needs CAP_NET_ADMIN: run as root/);
  assert.equal(attachAdvice('vx1', EINVAL), '');
});
