import assert from 'node:assert/strict';
import test from 'node:test';
import { checkCongestion, describe } from '../../bench/sockets.ts';

const SYSCTLS: Readonly<Record<string, string>> = {
  'ipv4/tcp_congestion_control': 'bbr\n',
  'ipv4/tcp_rmem': '4096\t131072\t33554432\n',
  'ipv4/tcp_wmem': '4096\t16384\t4194304\n',
  'core/rmem_default': '212992\n',
  'core/default_qdisc': 'pfifo_fast',
};

test('sockets in a line: the maximum of three, and what is not known', () => {
  assert.equal(
    describe((name) => SYSCTLS[name]),
    'TCP bbr, buffers up to 33.6 MB (receive) and 4.2 MB (send); UDP buffer 0.2 MB; default qdisc pfifo_fast',
  );
  assert.match(
    describe(() => undefined),
    /^TCP unknown, buffers up to unknown .*; UDP buffer unknown$/,
  );
});

test('a congestion control that is not there is refused with those that are', () => {
  checkCongestion('cubic', ['reno', 'cubic']);
  assert.throws(() => checkCongestion('vegas', ['reno', 'cubic']), /no "vegas"; it has reno, cubic \(modprobe/);
});
