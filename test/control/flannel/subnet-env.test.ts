import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';
import {
  firstAddress,
  formatSubnetEnv,
  networkOf,
  parseSubnetEnv,
  readSubnetEnv,
  replaceFile,
} from '../../../control/flannel/subnet-env.ts';

const DUAL = {
  network: { ipv4: '10.244.0.0/16', ipv6: 'fd00:10::/48' },
  subnet: { ipv4: '10.244.1.0/24', ipv6: 'fd00:10:0:1::/64' },
  mtu: 1430,
  ipMasq: true,
};
const DUAL_TEXT = `FLANNEL_NETWORK=10.244.0.0/16
FLANNEL_SUBNET=10.244.1.1/24
FLANNEL_IPV6_NETWORK=fd00:10::/48
FLANNEL_IPV6_SUBNET=fd00:10:0:1::1/64
FLANNEL_MTU=1430
FLANNEL_IPMASQ=true
`;

test("the file is flannel's", () => {
  assert.equal(formatSubnetEnv(DUAL), DUAL_TEXT);
  const single = {
    ...DUAL,
    network: { ...DUAL.network, ipv6: null },
    subnet: { ...DUAL.subnet, ipv6: null },
    mtu: 1450,
  };
  assert.equal(
    formatSubnetEnv({ ...single, ipMasq: false }),
    'FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=false\n',
  );
});

test('what is written is read', () => {
  assert.deepEqual(parseSubnetEnv(DUAL_TEXT), DUAL);
});

test('a mistake is named with its key', () => {
  assert.throws(() => parseSubnetEnv('FLANNEL_MTU=1450\n'), /FLANNEL_SUBNET is missing/);
  assert.throws(() => parseSubnetEnv('FLANNEL_SUBNET=10.244.1.1/24\n'), /FLANNEL_MTU= is not an MTU/);
  assert.throws(
    () => parseSubnetEnv('FLANNEL_SUBNET=10.244.1.1\nFLANNEL_MTU=1450'),
    /FLANNEL_SUBNET=10\.244\.1\.1 is not/,
  );
  assert.throws(() => parseSubnetEnv('FLANNEL_SUBNET=10.244.1.1/33\nFLANNEL_MTU=1450'), /prefix length/);
  assert.throws(() => readSubnetEnv('/nowhere/subnet.env'), /^Error: \/nowhere\/subnet\.env: is not there: is uvxlan/);
});

test('prefixes', () => {
  assert.equal(firstAddress('10.244.1.0/24'), '10.244.1.1/24');
  assert.equal(firstAddress('fd00:1::/64'), 'fd00:1::1/64');
  assert.equal(networkOf('10.244.1.129/25'), '10.244.1.128/25');
  assert.equal(networkOf('fd00:1::ffff/63'), 'fd00:1::/63');
});

test('a file is replaced whole, and leaves no other beside it', (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'uvxlan-subnet-env-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const file = join(directory, 'run', 'subnet.env');
  replaceFile(file, 'one');
  const { ino } = statSync(file);
  replaceFile(file, 'two', 0o600);
  assert.equal(readFileSync(file, 'utf8'), 'two');
  assert.notEqual(statSync(file).ino, ino, 'whoever has the old one open goes on reading it');
  assert.equal(statSync(file).mode & 0o777, 0o600);
  assert.deepEqual(readdirSync(join(directory, 'run')), ['subnet.env']);
});
