import assert from 'node:assert/strict';
import test from 'node:test';
import { Findings } from '../../control/doctor/finding.ts';
import { judgeOffloads } from '../../control/doctor/nic.ts';
import type { Link } from '../../control/host.ts';

const NIC: Link = {
  ...{
    name: 'eth0',
    ifindex: 2,
    type: 'ether',
    kind: undefined,
    mac: '02:00:00:00:00:01',
    mtu: 1500,
    alias: undefined,
  },
  ...{ up: true, noarp: false, master: undefined, gsoMaxSize: undefined },
};
const GOOD = {
  'tx-checksumming': true,
  'generic-segmentation-offload': true,
  'generic-receive-offload': true,
  'large-receive-offload': false,
};

function judged(changes: Partial<typeof GOOD>, kind?: string) {
  const findings = new Findings('eth0');
  judgeOffloads(findings, { ...NIC, kind }, new Map(Object.entries({ ...GOOD, ...changes })));
  return findings.list.map(({ status, message, advice }) => [status, message.split(/[:,]/)[0], advice?.split(',')[0]]);
}

test('settings of a NIC that cost speed are named, with the command that changes them', () => {
  assert.deepEqual(judged({}), [['ok', 'gro', undefined]]);
  assert.deepEqual(judged({ 'generic-receive-offload': false }), [['warn', 'gro is off', 'ethtool -K eth0 gro on']]);
  assert.deepEqual(judged({ 'generic-segmentation-offload': false }), [
    ['warn', 'gso is off', 'ethtool -K eth0 gso on'],
  ]);
  assert.deepEqual(judged({ 'large-receive-offload': true }), [['warn', 'lro is on', 'ethtool -K eth0 lro off']]);
  assert.deepEqual(judged({ 'tx-checksumming': false }), [['warn', 'tx is off', 'ethtool -K eth0 tx on']]);
  assert.deepEqual(judged({ 'tx-checksumming': false }, 'veth'), [['warn', 'tx is off', 'ethtool -K eth0 tx on']]);
  assert.deepEqual(judged({}, 'veth'), [['ok', 'eth0 is a veth with tx on', undefined]]);
});

test('a NIC without a setting is not blamed for it', () => {
  const findings = new Findings('tun0');
  judgeOffloads(findings, NIC, new Map());
  assert.deepEqual(
    findings.list.map(({ status }) => status),
    ['ok'],
  );
});
