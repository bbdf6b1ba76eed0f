import assert from 'node:assert/strict';
import test from 'node:test';
import { repair } from '../../../control/flannel/firewall.ts';
import { iptablesChains, nftTable } from '../../../control/flannel/masquerade.ts';

const WISH = {
  network: '10.244.0.0/16',
  subnet: '10.244.1.0/24',
  masquerade: true,
  randomFully: true,
  forward: true,
};
const MASQ = '-m comment --comment "flanneld masq"';
const [NAT, FORWARD] = iptablesChains('ipv4', WISH);

test("the rules are flannel's, as iptables -S prints them", () => {
  assert.deepEqual(NAT, {
    table: 'nat',
    name: 'FLANNEL-POSTRTG',
    parent: 'POSTROUTING',
    jump: `${MASQ} -j FLANNEL-POSTRTG`,
    rules: [
      `-m mark --mark 0x4000/0x4000 ${MASQ} -j RETURN`,
      `-s 10.244.1.0/24 -d 10.244.0.0/16 ${MASQ} -j RETURN`,
      `-s 10.244.0.0/16 -d 10.244.1.0/24 ${MASQ} -j RETURN`,
      `! -s 10.244.0.0/16 -d 10.244.1.0/24 ${MASQ} -j RETURN`,
      `-s 10.244.0.0/16 ! -d 224.0.0.0/4 ${MASQ} -j MASQUERADE --random-fully`,
      `! -s 10.244.0.0/16 -d 10.244.0.0/16 ${MASQ} -j MASQUERADE --random-fully`,
    ],
  });
  assert.deepEqual(FORWARD!.rules, [
    '-s 10.244.0.0/16 -m comment --comment "flanneld forward" -j ACCEPT',
    '-d 10.244.0.0/16 -m comment --comment "flanneld forward" -j ACCEPT',
  ]);
});

test('options leave out what they are for', () => {
  const [nat, forward] = iptablesChains('ipv4', { ...WISH, masquerade: false, forward: false });
  assert.deepEqual([nat!.rules, forward!.rules], [[], []]);
  assert.ok(iptablesChains('ipv4', { ...WISH, randomFully: false })[0]!.rules.every((rule) => !/fully/.test(rule)));
  assert.match(iptablesChains('ipv6', WISH)[0]!.rules[4]!, /! -d ff00::\/8/);
  assert.equal(nftTable('ipv4', { ...WISH, masquerade: false, forward: false }), '');
});

const append = (rule: string) => `-A FLANNEL-POSTRTG ${rule}`;

test('what is right is left alone', () => {
  assert.deepEqual(repair(NAT!, NAT!.rules, ['-j KUBE-POSTROUTING', NAT!.jump]), []);
});

test('what is not there is made', () => {
  const made = [':FLANNEL-POSTRTG - [0:0]', ...NAT!.rules.map(append), `-A POSTROUTING ${NAT!.jump}`];
  assert.deepEqual(repair(NAT!, undefined, []), made);
});

test('a rule that is missing, changed or out of order: all of the chain is written again, the jump stays', () => {
  const { rules, jump } = NAT!;
  const written = [':FLANNEL-POSTRTG - [0:0]', ...rules.map(append)];
  assert.deepEqual(repair(NAT!, rules.slice(1), [jump]), written);
  assert.deepEqual(repair(NAT!, [...rules].reverse(), [jump]), written);
  assert.deepEqual(repair(NAT!, [...rules, '-j DROP'], [jump]), written);
});

test('a jump that is missing, doubled or different is set right, and no other rule of the chain touched', () => {
  const { rules, jump } = NAT!;
  assert.deepEqual(repair(NAT!, rules, ['-j DOCKER']), [`-A POSTROUTING ${jump}`]);
  assert.deepEqual(repair(NAT!, rules, [jump, '-j DOCKER', jump]), [
    `-D POSTROUTING ${jump}`,
    `-D POSTROUTING ${jump}`,
    `-A POSTROUTING ${jump}`,
  ]);
  assert.deepEqual(repair(NAT!, rules, ['-o eth9 -j FLANNEL-POSTRTG']), [
    '-D POSTROUTING -o eth9 -j FLANNEL-POSTRTG',
    `-A POSTROUTING ${jump}`,
  ]);
});

test('what is not wanted any more goes: first the jump, then the chain', () => {
  const [nat] = iptablesChains('ipv4', null);
  assert.deepEqual(repair(nat!, NAT!.rules, [NAT!.jump]), [
    `-D POSTROUTING ${NAT!.jump}`,
    ':FLANNEL-POSTRTG - [0:0]',
    '-X FLANNEL-POSTRTG',
  ]);
  assert.deepEqual(repair(nat!, undefined, []), []);
});
