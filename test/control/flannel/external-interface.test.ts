import assert from 'node:assert/strict';
import test, { type TestContext } from 'node:test';
import { Network } from '../../../cli/lab/network.ts';
import { chooseInterface, type InterfaceWish } from '../../../control/flannel/external-interface.ts';
import type { Family } from '../../../control/flannel/lease.ts';
import { Host } from '../../../control/host.ts';
import { lacking } from '../../net/requirements.ts';

const options = { skip: lacking(), timeout: 120_000 };

/** eth0 has the default route, eth1 an IPv6 address as well; flannel.1 is what an earlier run has left. */
function host(t: TestContext): Host {
  const network = Network.build(t, {
    hosts: { node: {}, other: {} },
    links: [
      ['node eth0 192.0.2.1/24 192.0.2.11/24', 'other a0'],
      ['node eth1 203.0.113.1/24 2001:db8::1/64', 'other a1'],
      ['node flannel.1 10.244.1.0/32', 'other a2'],
    ],
    routes: { node: ['default via 192.0.2.254', '198.51.100.0/24 via 203.0.113.254'] },
  });
  return new Host(network.host('node').inside([]));
}

test('the NIC is chosen as flannel chooses it', options, async (t) => {
  const node = host(t);
  const choose = async (wish: Partial<InterfaceWish>, families: Family[] = ['ipv4']) => {
    const all = { iface: [], ifaceRegex: [], ifaceCanReach: '', except: ['flannel.1'], ...wish };
    const { nic, address } = await chooseInterface(node, all, families);
    return `${nic.name} ${[address.ipv4, address.ipv6].filter((each) => each !== null).join(' ')}`;
  };
  assert.equal(await choose({}), 'eth0 192.0.2.1', "the default route's");
  assert.equal(await choose({ iface: ['eth1'] }), 'eth1 203.0.113.1');
  assert.equal(
    await choose({ iface: ['eth7', '192.0.2.11'] }),
    'eth0 192.0.2.11',
    'the first that is there, by address',
  );
  assert.equal(await choose({ ifaceRegex: ['^203\\.'] }), 'eth1 203.0.113.1', 'by a pattern of its address');
  assert.equal(await choose({ ifaceRegex: ['^10\\.', 'th1$'] }), 'eth1 203.0.113.1', 'our own device is left out');
  assert.equal(await choose({ ifaceCanReach: '198.51.100.7' }), 'eth1 203.0.113.1');
  assert.equal(await choose({ iface: ['eth1'] }, ['ipv4', 'ipv6']), 'eth1 203.0.113.1 2001:db8::1');
  assert.equal(await choose({ iface: ['eth1'] }, ['ipv6']), 'eth1 2001:db8::1');

  await assert.rejects(
    choose({ iface: ['eth7'] }),
    /no interface for --iface eth7; there are: lo, .*eth0 192\.0\.2\.1 192/,
  );
  await assert.rejects(choose({ iface: ['eth0'] }, ['ipv6']), /eth0 has no IPv6 address of global scope/);
  await assert.rejects(choose({}, ['ipv6']), /there is no default route \(ip -6 route\): give --iface NIC/);
});
