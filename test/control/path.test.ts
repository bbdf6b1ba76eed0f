import assert from 'node:assert/strict';
import test from 'node:test';
import { type Link, type Neighbour, neighbourKey, type Route, type Snapshot } from '../../control/host.ts';
import { CommandFailed } from '../../control/iproute.ts';
import { explain, findPath, routeQuery } from '../../control/path.ts';

const TARGET = { remote: '192.0.2.2', local: '192.0.2.1', dev: 'eth0' };
const MAC = '02:00:00:00:00:02';
const UNREACHABLE = new CommandFailed('ip route get', 'RTNETLINK answers: Network is unreachable');

function link(name: string, changes: Partial<Link> = {}): Link {
  const mac = '02:00:00:00:00:01';
  const base = { ifindex: 2, type: 'ether', kind: undefined, mtu: 1500, master: undefined };
  return { ...base, gsoMaxSize: undefined, alias: undefined, name, mac, up: true, noarp: false, ...changes };
}

function route(changes: Partial<Route> = {}): Route {
  return { type: 'unicast', dev: 'eth0', gateway: undefined, source: undefined, mtu: undefined, ...changes };
}

function neighbour(state: Neighbour['state'], changes: Partial<Neighbour> = {}): Neighbour {
  const mac = state === 'FAILED' || state === 'INCOMPLETE' ? undefined : MAC;
  const base = {
    address: '192.0.2.2',
    dev: 'eth0',
    managed: false,
    isRouter: false,
    externallyLearned: false,
    protocol: undefined,
  };
  return { ...base, mac, state, ...changes };
}

function snapshot(neighbours: Neighbour[] = [], links: Link[] = [link('eth0')]): Snapshot {
  return {
    links: new Map(links.map((each) => [each.name, each])),
    neighbours: new Map(neighbours.map((each) => [neighbourKey(each.dev, each.address), each])),
    routes: [],
  };
}

test('asks the routing table what the kernel would ask', () => {
  assert.deepEqual(routeQuery(TARGET), { destination: '192.0.2.2', source: '192.0.2.1', dev: 'eth0' });
});

test('a remote on the link is reached with its own MAC', () => {
  assert.deepEqual(findPath(TARGET, route(), snapshot([neighbour('REACHABLE')])), {
    path: {
      dev: 'eth0',
      ifindex: 2,
      sourceMac: '02:00:00:00:00:01',
      destinationMac: MAC,
      source: '192.0.2.1',
      destination: '192.0.2.2',
      gateway: undefined,
      mtu: 1500,
    },
    neighbour: { dev: 'eth0', address: '192.0.2.2' },
  });
});

test('a remote behind a gateway is reached with the MAC of the gateway and the MTU of the route', () => {
  const gateway = neighbour('STALE', { address: '192.0.2.254' });
  const found = findPath(
    { remote: '198.51.100.7' },
    route({ gateway: '192.0.2.254', mtu: 1400, source: '192.0.2.1' }),
    snapshot([gateway, neighbour('REACHABLE', { address: '198.51.100.7', mac: '02:00:00:00:00:99' })]),
  );
  assert.equal(found.path?.destinationMac, MAC);
  assert.equal(found.path?.gateway, '192.0.2.254');
  assert.equal(found.path?.source, '192.0.2.1');
  assert.equal(found.path?.mtu, 1400);
});

test('a route cannot have a larger MTU than its device', () => {
  assert.equal(findPath(TARGET, route({ mtu: 9000 }), snapshot([neighbour('REACHABLE')])).path?.mtu, 1500);
});

test('a neighbour is used in the states in which the kernel uses it', () => {
  for (const state of ['PERMANENT', 'NOARP', 'REACHABLE', 'PROBE', 'STALE', 'DELAY'] as const) {
    assert.equal(findPath(TARGET, route(), snapshot([neighbour(state)])).path?.destinationMac, MAC, state);
  }
  for (const state of ['NONE', 'INCOMPLETE', 'FAILED'] as const) {
    assert.equal(findPath(TARGET, route(), snapshot([neighbour(state)])).path, undefined, state);
  }
});

test('the reason names who does not answer', () => {
  assert.equal(findPath(TARGET, route(), snapshot()).reason, 'waiting for 192.0.2.2 to answer ARP on eth0');
  assert.equal(
    findPath(TARGET, route(), snapshot([neighbour('FAILED')])).reason,
    '192.0.2.2 does not answer ARP on eth0',
  );
  assert.equal(
    findPath(TARGET, route({ gateway: '192.0.2.254' }), snapshot([neighbour('FAILED', { address: '192.0.2.254' })]))
      .reason,
    'gateway 192.0.2.254 does not answer ARP on eth0',
  );
});

test('what keeps packets from leaving has a reason', () => {
  const cases: [string, Parameters<typeof findPath>][] = [
    ['no route to 192.0.2.2', [TARGET, UNREACHABLE, snapshot()]],
    [
      'no route to 192.0.2.2 (RTNETLINK answers: Invalid argument)',
      [TARGET, new CommandFailed('ip', 'RTNETLINK answers: Invalid argument'), snapshot()],
    ],
    [
      '192.0.2.2 is ours',
      [
        { ...TARGET, ifLocal: { reason: '192.0.2.2 is ours', isDropped: true } },
        route({ type: 'local', dev: 'lo' }),
        snapshot(),
      ],
    ],
    ['192.0.2.2 is a broadcast address on eth0', [TARGET, route({ type: 'broadcast' }), snapshot()]],
    ['the route to 192.0.2.2 goes through eth1, not through eth0', [TARGET, route({ dev: 'eth1' }), snapshot()]],
    ['there is no device eth0', [TARGET, UNREACHABLE, snapshot([], [])]],
    ['eth0 is down', [TARGET, UNREACHABLE, snapshot([], [link('eth0', { up: false })])]],
    [
      'tun0 has no link-layer addresses (type none): take the udp uplink',
      [{ remote: '192.0.2.2' }, route({ dev: 'tun0' }), snapshot([], [link('tun0', { type: 'none', mac: undefined })])],
    ],
    [
      'no source address for 192.0.2.2 on eth0: give the device a local one',
      [{ remote: '192.0.2.2' }, route(), snapshot()],
    ],
    [
      'eth0 does no ARP and 192.0.2.2 has no permanent neighbour entry (ip neigh add 192.0.2.2 lladdr MAC dev eth0 nud permanent)',
      [TARGET, route(), snapshot([neighbour('NOARP')], [link('eth0', { noarp: true })])],
    ],
  ];
  for (const [reason, args] of cases) assert.equal(findPath(...args).reason, reason);
});

test('a device without ARP uses permanent neighbours', () => {
  const found = findPath(TARGET, route(), snapshot([neighbour('PERMANENT')], [link('eth0', { noarp: true })]));
  assert.equal(found.path?.destinationMac, MAC);
});

test('a multicast group needs no neighbour: its MAC has the low 23 bits (RFC 1112, 6.4)', () => {
  const found = findPath({ ...TARGET, remote: '239.129.2.3' }, route({ type: 'multicast' }), snapshot());
  assert.equal(found.path?.destinationMac, '01:00:5e:01:02:03');
  assert.equal(found.neighbour, undefined);
});

test('of what the host sends itself, only what keeps it from that matters', () => {
  const target = { ...TARGET, viaHost: true };
  const tun = link('eth0', { type: 'none', mac: undefined });
  const ours = { reason: '192.0.2.2 is ours', isDropped: true };
  const cases: [object, Parameters<typeof findPath>][] = [
    [{ viaHost: true }, [target, route(), snapshot([], [tun])]],
    [{ viaHost: true }, [target, route(), snapshot([neighbour('NOARP')], [link('eth0', { noarp: true })])]],
    [{ viaHost: true }, [{ ...target, remote: 'ff02::1' }, route({ type: 'multicast' }), snapshot()]],
    [{ viaHost: true }, [target, route({ type: 'local', dev: 'lo' }), snapshot()]],
    [{ viaHost: true }, [TARGET, route({ type: 'local', dev: 'lo' }), snapshot()]],
    [ours, [{ ...target, ifLocal: ours }, route({ type: 'local', dev: 'lo' }), snapshot()]],
    [{ reason: 'eth0 is down' }, [target, UNREACHABLE, snapshot([], [link('eth0', { up: false })])]],
    [{ reason: 'no route to 192.0.2.2', unexplained: true }, [target, UNREACHABLE, snapshot()]],
  ];
  for (const [found, args] of cases) assert.deepEqual(findPath(...args), found);
});

test('"no route" is explained', () => {
  const lookup = findPath(TARGET, UNREACHABLE, snapshot());
  assert.ok(lookup.reason !== undefined && lookup.unexplained);
  const ours = [{ address: '192.0.2.1', family: 'inet', scope: 'global', dev: 'eth0' }] as const;
  const reason = 'no route to 192.0.2.2';
  assert.equal(explain(TARGET, reason, route(), []), "local address 192.0.2.1 is not one of this machine's");
  assert.equal(explain(TARGET, reason, UNREACHABLE, ours), reason);
  assert.equal(explain(TARGET, reason, route(), ours), reason);
  assert.equal(
    explain(TARGET, reason, route({ dev: 'eth1' }), ours),
    'the route to 192.0.2.2 goes through eth1, not through eth0',
  );
});

test('over IPv6 neighbours are asked otherwise', () => {
  const target = { remote: '2001:db8::2', local: '2001:db8::1', dev: 'eth0' };
  const failed = neighbour('FAILED', { address: '2001:db8::2' });
  const { reason } = findPath(target, route(), snapshot([failed]));
  assert.equal(reason, '2001:db8::2 does not answer neighbour solicitations on eth0');
});

test('what needs no explanation gets none', () => {
  for (const lookup of [
    findPath({ remote: '192.0.2.2' }, UNREACHABLE, snapshot()),
    findPath(TARGET, UNREACHABLE, snapshot([], [])),
    findPath(TARGET, route(), snapshot()),
    findPath(TARGET, route({ gateway: '192.0.2.254' }), snapshot([neighbour('FAILED', { address: '192.0.2.254' })])),
  ]) {
    assert.ok(lookup.reason !== undefined && !lookup.unexplained);
  }
});
