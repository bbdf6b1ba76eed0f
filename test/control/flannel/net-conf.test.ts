import assert from 'node:assert/strict';
import test from 'node:test';
import { DocumentError } from '../../../control/flannel/keys.ts';
import { parseNetConf } from '../../../control/flannel/net-conf.ts';

function conf(value: unknown) {
  return parseNetConf(JSON.stringify(value), 'net-conf.json');
}

function mistakes(text: string): string[] {
  try {
    parseNetConf(text, 'net-conf.json');
  } catch (error) {
    assert.ok(error instanceof DocumentError);
    return error.message.split('\n');
  }
  assert.fail('the configuration was accepted');
}

test("the net-conf.json of flannel's own manifest, and its defaults", () => {
  const text =
    '{\n\t"Network": "10.244.0.0/16",\n\t"EnableNFTables": false,\n\t"Backend": {\n\t\t"Type": "vxlan"\n\t}\n}\n';
  assert.deepEqual(parseNetConf(text, 'net-conf.json'), {
    conf: {
      ipv4: { network: '10.244.0.0/16', subnetLen: null, subnetMin: null, subnetMax: null },
      ipv6: null,
      enableNFTables: false,
      backend: { type: 'vxlan', vni: 1, port: 8472, mtu: null, gbp: false, learning: false, directRouting: false },
    },
    notes: [],
  });
});

test('every key, for both IP versions', () => {
  const given = {
    Network: '10.244.0.5/16',
    IPv6Network: 'FD00:10::/48',
    EnableIPv4: true,
    EnableIPv6: true,
    EnableNFTables: true,
    SubnetLen: 26,
    SubnetMin: '10.244.1.0',
    SubnetMax: '10.244.2.0',
    IPv6SubnetLen: 80,
    IPv6SubnetMin: 'fd00:10:0:1::',
    IPv6SubnetMax: 'fd00:10:0:2::',
    Backend: { Type: 'vxlan', VNI: 4096, Port: 4789, MTU: 1400, GBP: true, Learning: true, DirectRouting: true },
  };
  assert.deepEqual(conf(given), {
    conf: {
      ipv4: { network: '10.244.0.0/16', subnetLen: 26, subnetMin: '10.244.1.0', subnetMax: '10.244.2.0' },
      ipv6: { network: 'fd00:10::/48', subnetLen: 80, subnetMin: 'fd00:10:0:1::', subnetMax: 'fd00:10:0:2::' },
      enableNFTables: true,
      backend: { type: 'vxlan', vni: 4096, port: 4789, mtu: 1400, gbp: true, learning: true, directRouting: true },
    },
    notes: [],
  });
});

test('the other backends, and IPv6 alone', () => {
  const network = { Network: '10.244.0.0/16' };
  assert.deepEqual(conf({ ...network, Backend: { Type: 'host-gw' } }).conf.backend, { type: 'host-gw' });
  assert.deepEqual(conf({ ...network, Backend: { Type: 'udp' } }).conf.backend, { type: 'udp', port: 8285 });
  assert.deepEqual(conf({ ...network, Backend: { Type: 'udp', Port: 9000 } }).conf.backend, {
    type: 'udp',
    port: 9000,
  });
  const alone = conf({
    EnableIPv4: false,
    EnableIPv6: true,
    IPv6Network: 'fd00::/48',
    Backend: { Type: 'vxlan' },
  }).conf;
  assert.equal(alone.ipv4, null);
  assert.equal(alone.ipv6?.network, 'fd00::/48');
});

test('keys in any case, null and 0 for not given, as in Go', () => {
  const { conf: read, notes } = conf({
    network: '10.0.0.0/8',
    SUBNETLEN: 0,
    backend: { type: 'vxlan', port: 0, mtu: 0, vni: null },
  });
  assert.equal(read.ipv4?.network, '10.0.0.0/8');
  assert.equal(read.ipv4?.subnetLen, null);
  assert.deepEqual(read.backend, conf({ Network: '10.0.0.0/8', Backend: { Type: 'vxlan' } }).conf.backend);
  assert.deepEqual(notes, []);
});

test('unknown keys are passed over with a note, and so is a missing backend', () => {
  const { conf: read, notes } = conf({ Network: '10.0.0.0/8', EnableIpv66: true, Backend: { Type: 'vxlan', Prot: 1 } });
  assert.equal(read.ipv6, null);
  assert.deepEqual(notes, [
    'net-conf.json: EnableIpv66: unknown key, did you mean EnableIPv6?',
    'net-conf.json: Backend.Prot: unknown key, did you mean Port?',
  ]);
  const without = conf({ Network: '10.0.0.0/8' });
  assert.deepEqual(without.conf.backend, { type: 'udp', port: 8285 });
  assert.deepEqual(without.notes, [
    'net-conf.json: Backend: is missing: taking udp, as flanneld does; give {"Type": "vxlan"}',
  ]);
});

test('all mistakes at once, each with its path', () => {
  const wrong = {
    Network: '10.244.0.0',
    EnableIPv6: true,
    IPv6Network: '10.0.0.0/8',
    EnableNFTables: 'yes',
    SubnetLen: '24',
    SubnetMin: '10.244.1.0/24',
    IPv6SubnetLen: 127,
    Backend: { Type: 'vxlan', VNI: 16777216, Port: -1, MTU: 1450.5, DirectRouting: 1 },
  };
  assert.deepEqual(mistakes(JSON.stringify(wrong)), [
    'net-conf.json: Network: "10.244.0.0" is not an IPv4 prefix such as 10.244.0.0/16',
    'net-conf.json: SubnetLen: "24" is not a number 0..30',
    'net-conf.json: SubnetMin: "10.244.1.0/24" is not an IPv4 address',
    'net-conf.json: IPv6Network: "10.0.0.0/8" is not an IPv6 prefix such as fd00:10::/48',
    'net-conf.json: IPv6SubnetLen: 127 is out of range 0..126',
    'net-conf.json: EnableNFTables: "yes" is neither true nor false',
    'net-conf.json: Backend.VNI: 16777216 is out of range 0..16777215',
    'net-conf.json: Backend.Port: -1 is out of range 0..65535',
    'net-conf.json: Backend.MTU: 1450.5 is not a number 0..65521',
    'net-conf.json: Backend.DirectRouting: 1 is neither true nor false',
  ]);
});

test('what contradicts itself is refused', () => {
  assert.deepEqual(mistakes('{"Backend": {"Type": "vxlan"}}'), ['net-conf.json: Network: is missing']);
  assert.deepEqual(mistakes('{"EnableIPv4": false, "Backend": {"Type": "vxlan"}}'), [
    'net-conf.json: EnableIPv4: and EnableIPv6 are both off',
  ]);
  assert.deepEqual(mistakes('{"Network": "10.0.0.0/8", "Backend": {"Type": "wireguard"}}'), [
    'net-conf.json: Backend.Type: "wireguard" is not one of vxlan, host-gw, udp',
  ]);
  assert.deepEqual(mistakes('{"Network": "10.0.0.0/8", "Backend": {}}'), [
    'net-conf.json: Backend.Type: is missing: one of vxlan, host-gw, udp',
  ]);
  assert.deepEqual(
    mistakes('{"Network":"10.0.0.0/8","EnableIPv6":true,"IPv6Network":"fd00::/48","Backend":{"Type":"udp"}}'),
    ['net-conf.json: EnableIPv6: is on, but udp carries IPv4 only'],
  );
});

test('what is no JSON, or no map, is refused', () => {
  assert.match(mistakes('{"Network": }')[0], /^net-conf\.json: is not JSON: Unexpected token/);
  assert.match(mistakes('')[0], /^net-conf\.json: is not JSON: /);
  assert.deepEqual(mistakes('[]').slice(0, 1), ['net-conf.json: is not a map']);
  assert.deepEqual(mistakes('{"Network": "10.0.0.0/8", "Backend": "vxlan"}').slice(0, 1), [
    'net-conf.json: Backend: is not a map',
  ]);
});
