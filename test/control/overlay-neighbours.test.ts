import assert from 'node:assert/strict';
import test from 'node:test';
import type { VxlanDevice } from '../../control/device.ts';
import type { Neighbour } from '../../control/host.ts';
import type { NeighArguments } from '../../control/neigh-words.ts';
import { OverlayNeighbours } from '../../control/overlay-neighbours.ts';
import {
  IS_OWN,
  IS_ROUTER,
  NeighborReader,
  NUD_PERMANENT,
  NUD_REACHABLE,
  NUD_STALE,
  OF_BRIDGE,
} from '../../fdb/neighbors.ts';
import { parseIp } from '../../wire/address.ts';

const MAC = (last: number): string => `02:00:00:00:00:0${last}`;
const ALL = { dev: null, to: null, states: 0xff };

function create(limit?: number) {
  const neighbours = new OverlayNeighbours(limit);
  const reader = new NeighborReader(neighbours.buffer);
  const device = { index: 3, name: 'vx0' } as VxlanDevice;
  neighbours.addDevice(device);
  /** What workers see of an address: the last digit of its MAC, and its state. */
  const seen = (text: string): [number, number] | undefined => {
    const ip = parseIp(text)!;
    const state = reader.find(3, ip.length === 4 ? 4 : 6, ip, 0);
    return state === 0 ? undefined : [reader.macLow, state];
  };
  return { neighbours, device, seen };
}

const ours = (dst: string, last: number, changes: Partial<NeighArguments> = {}): NeighArguments => ({
  ...{ dst, dev: 'vx0', lladdr: MAC(last), nud: 'permanent', router: false },
  ...changes,
});
const hosts = (dev: string, address: string, last: number, state: Neighbour['state'], changes = {}): Neighbour => ({
  ...{ dev, address, mac: last ? MAC(last) : undefined, state, managed: false, isRouter: false },
  ...{ externallyLearned: false, protocol: undefined, ...changes },
});

test("add, change, replace and del have the kernel's outcomes", () => {
  const { neighbours, device, seen } = create();
  neighbours.change('add', device, ours('10.0.0.1', 1));
  assert.deepEqual(seen('10.0.0.1'), [1, NUD_PERMANENT]);
  assert.throws(() => neighbours.change('add', device, ours('10.0.0.1', 2)), { errno: 'EEXIST' });
  neighbours.change('change', device, ours('10.0.0.1', 2, { nud: 'stale', router: true }));
  assert.deepEqual(seen('10.0.0.1'), [2, NUD_STALE | IS_ROUTER]);
  assert.throws(() => neighbours.change('change', device, ours('10.0.0.9', 2)), { errno: 'ENOENT' });
  neighbours.change('replace', device, ours('fd00::1', 3));
  assert.deepEqual(neighbours.show(device, ALL), [
    { dst: '10.0.0.1', dev: 'vx0', lladdr: MAC(2), router: null, state: ['STALE'] },
    { dst: 'fd00::1', dev: 'vx0', lladdr: MAC(3), state: ['PERMANENT'] },
  ]);
  neighbours.del(device, '10.0.0.1');
  assert.equal(seen('10.0.0.1'), undefined);
  assert.throws(() => neighbours.del(device, '10.0.0.1'), { errno: 'ENOENT' });
});

test('flush and show take what they are told', () => {
  const { neighbours, device, seen } = create();
  for (const [dst, nud] of [
    ['10.0.0.1', 'permanent'],
    ['10.0.1.1', 'stale'],
    ['10.0.1.2', 'noarp'],
    ['fd00::1', 'stale'],
  ] as const) {
    neighbours.change('add', device, ours(dst, 1, { nud }));
  }
  const shown = (to: string | null, states = 0xff) =>
    neighbours.show(device, { dev: null, to, states }).map(({ dst }) => dst);
  assert.deepEqual(shown('10.0.1.0/24'), ['10.0.1.1', '10.0.1.2']);
  assert.deepEqual(shown('10.0.0.0/23'), ['10.0.0.1', '10.0.1.1', '10.0.1.2']);
  assert.deepEqual(shown('10.0.1.1'), ['10.0.1.1']);
  assert.deepEqual(shown('::/0'), ['fd00::1']);
  assert.deepEqual(shown(null, NUD_STALE), ['10.0.1.1', 'fd00::1']);
  neighbours.flush(device, { dev: 'vx0', to: '10.0.0.0/8', states: NUD_STALE });
  assert.deepEqual(shown(null), ['10.0.0.1', '10.0.1.2', 'fd00::1']);
  assert.equal(seen('10.0.1.1'), undefined);
});

test("the host's neighbours on the device count, and go again; ours come first", () => {
  const { neighbours, device, seen } = create();
  neighbours.change('add', device, ours('10.0.0.1', 1));
  const known = [
    hosts('vx0', '10.0.0.1', 5, 'REACHABLE'),
    hosts('vx0', '10.0.0.2', 5, 'REACHABLE', { isRouter: true }),
    hosts('vx0', '10.0.0.3', 0, 'FAILED'),
    hosts('eth0', '10.0.0.4', 5, 'REACHABLE'),
  ];
  neighbours.follow(device, known, []);
  assert.deepEqual(seen('10.0.0.1'), [1, NUD_PERMANENT]);
  assert.deepEqual(seen('10.0.0.2'), [5, NUD_REACHABLE | IS_ROUTER]);
  assert.deepEqual([seen('10.0.0.3'), seen('10.0.0.4')], [undefined, undefined]);
  assert.deepEqual(neighbours.show(device, ALL).at(-1), {
    ...{ dst: '10.0.0.2', dev: 'vx0', lladdr: MAC(5), router: null, state: ['REACHABLE'], protocol: 'kernel' },
  });
  neighbours.del(device, '10.0.0.1');
  assert.deepEqual(seen('10.0.0.1'), [5, NUD_REACHABLE], "the host's, now that ours is gone");
  neighbours.follow(device, [], []);
  assert.deepEqual([seen('10.0.0.1'), seen('10.0.0.2')], [undefined, undefined]);
});

test("the bridge's neighbours are marked; the host's own addresses come before all", () => {
  const { neighbours, device, seen } = create();
  neighbours.change('add', device, ours('10.0.0.9', 1));
  const known = [
    hosts('br0', '10.0.0.1', 6, 'STALE'),
    hosts('vx0', '10.0.0.1', 5, 'PERMANENT'),
    hosts('br0', '10.0.0.2', 6, 'STALE'),
  ];
  const address = (dev: string, text: string) => ({ dev, address: text, family: 'inet' as const, scope: 'global' });
  neighbours.follow(device, known, [address('br0', '10.0.0.9'), address('eth0', '10.0.0.8')], 'br0');
  assert.deepEqual(seen('10.0.0.1'), [5, NUD_PERMANENT]);
  assert.deepEqual(seen('10.0.0.2'), [6, NUD_STALE | OF_BRIDGE]);
  assert.deepEqual(seen('10.0.0.9'), [0, NUD_PERMANENT | IS_OWN]);
  assert.equal(seen('10.0.0.8'), undefined);
  neighbours.follow(device, known, []);
  assert.deepEqual([seen('10.0.0.2'), seen('10.0.0.9')], [undefined, [1, NUD_PERMANENT]]);
});

test('a full table refuses, and the entry is as it was; a device that goes leaves room', () => {
  const { neighbours, device, seen } = create(2);
  neighbours.change('add', device, ours('10.0.0.1', 1));
  neighbours.change('add', device, ours('10.0.0.2', 1));
  assert.throws(() => neighbours.change('add', device, ours('10.0.0.3', 1)), { errno: 'ENOBUFS' });
  assert.equal(neighbours.show(device, ALL).length, 2);
  const other = { index: 4, name: 'vx1' } as VxlanDevice;
  neighbours.addDevice(other);
  assert.throws(() => neighbours.change('add', other, ours('10.0.0.1', 1)), { errno: 'ENOBUFS' });
  neighbours.removeDevice(device);
  neighbours.change('add', other, ours('10.0.0.1', 1));
  assert.equal(seen('10.0.0.1'), undefined);
});
