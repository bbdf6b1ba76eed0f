import assert from 'node:assert/strict';
import test from 'node:test';
import { CNI_ERROR, type CniError, delegateConf, parseConf, runCni } from '../../../control/flannel/cni-plugin.ts';

const ENV = {
  network: { ipv4: '10.244.0.0/16', ipv6: null },
  subnet: { ipv4: '10.244.1.0/24', ipv6: null },
  mtu: 1450,
  ipMasq: true,
};
const CONF = { cniVersion: '0.3.1', name: 'cbr0', type: 'flannel' };
const conf = (more: object = {}) => parseConf(JSON.stringify({ ...CONF, ...more }));

test('bridge and host-local get what flannel gives them', () => {
  assert.deepEqual(delegateConf(conf({ delegate: { hairpinMode: true, isDefaultGateway: true } }), ENV), {
    type: 'bridge',
    ipMasq: false,
    mtu: 1450,
    hairpinMode: true,
    isDefaultGateway: true,
    isGateway: true,
    name: 'cbr0',
    cniVersion: '0.3.1',
    ipam: {
      type: 'host-local',
      ranges: [[{ subnet: '10.244.1.0/24' }]],
      routes: [{ dst: '10.244.0.0/16', gw: '10.244.1.1' }],
    },
  });
});

test('what the delegate is given counts more; without the agent the bridge masquerades', () => {
  const delegate = delegateConf(conf({ delegate: { mtu: 1400, isGateway: false, type: 'bridge' } }), {
    ...ENV,
    ipMasq: false,
  });
  assert.deepEqual([delegate.mtu, delegate.isGateway, delegate.ipMasq], [1400, false, true]);
  assert.equal(delegateConf(conf({ delegate: { type: 'ptp' } }), ENV).isGateway, undefined);
});

test('dual stack: a range and a route of each family; ipam and runtimeConfig are passed on', () => {
  const dual = {
    ...ENV,
    network: { ...ENV.network, ipv6: 'fd00::/48' },
    subnet: { ...ENV.subnet, ipv6: 'fd00:0:0:1::/64' },
  };
  const ipam = { dataDir: '/tmp/x', routes: [{ dst: '192.0.2.0/24' }] };
  const delegate = delegateConf(conf({ ipam, runtimeConfig: { mac: '02:00:00:00:00:01' } }), dual);
  assert.deepEqual(delegate.ipam, {
    type: 'host-local',
    dataDir: '/tmp/x',
    ranges: [[{ subnet: '10.244.1.0/24' }], [{ subnet: 'fd00:0:0:1::/64' }]],
    routes: [
      { dst: '192.0.2.0/24' },
      { dst: '10.244.0.0/16', gw: '10.244.1.1' },
      { dst: 'fd00::/48', gw: 'fd00:0:0:1::1' },
    ],
  });
  assert.deepEqual(delegate.runtimeConfig, { mac: '02:00:00:00:00:01' });
});

const WRONG: [string, string, number, RegExp][] = [
  ['no JSON', '{', CNI_ERROR.decodingFailed, /not JSON/],
  ['no object', '[]', CNI_ERROR.decodingFailed, /not an object/],
  [
    'a version',
    JSON.stringify({ ...CONF, cniVersion: '9.0.0' }),
    CNI_ERROR.incompatibleVersion,
    /9\.0\.0 is not one of/,
  ],
  ['no name', JSON.stringify({ type: 'flannel' }), CNI_ERROR.invalidConfig, /name is missing/],
  ['delegate', JSON.stringify({ ...CONF, delegate: 7 }), CNI_ERROR.invalidConfig, /delegate is not an object/],
  [
    'ipam',
    JSON.stringify({ ...CONF, delegate: { ipam: {} } }),
    CNI_ERROR.invalidConfig,
    /delegate\.ipam is set by this/,
  ],
];

for (const [what, input, code, message] of WRONG) {
  test(`refused: ${what}`, () => {
    assert.throws(
      () => parseConf(input),
      (error: CniError) => error.code === code && message.test(error.message),
    );
  });
}

const run = (command: string, more: object = {}, environment: NodeJS.ProcessEnv = {}) =>
  runCni({
    environment: { CNI_COMMAND: command, CNI_CONTAINERID: 'c1', CNI_PATH: '/usr/lib/cni', ...environment },
    input: JSON.stringify({ ...CONF, subnetFile: '/nowhere/subnet.env', dataDir: '/nowhere/cni', ...more }),
  });

test('VERSION lists the versions', async () => {
  const { cniVersion, supportedVersions } = JSON.parse(await run('VERSION'));
  assert.equal(cniVersion, '0.3.1');
  assert.ok(supportedVersions.includes('1.0.0'));
});

test('before the agent is ready: STATUS and ADD say so, DEL has nothing to do', async () => {
  const notReady = (error: CniError) =>
    error.code === CNI_ERROR.notAvailable && /subnet\.env: is not there/.test(error.message);
  await assert.rejects(run('STATUS'), notReady);
  await assert.rejects(run('ADD'), notReady);
  assert.equal(await run('DEL'), '');
});

test('a container id cannot lead out of the directory', async () => {
  const isRefused = (error: CniError) => error.code === CNI_ERROR.invalidEnvironment;
  await assert.rejects(run('DEL', {}, { CNI_CONTAINERID: '../etc/passwd' }), isRefused);
  await assert.rejects(run('DEL', {}, { CNI_CONTAINERID: '' }), isRefused);
  await assert.rejects(run('FLY'), isRefused);
});
