import assert from 'node:assert/strict';
import test from 'node:test';
import { Lists } from '../../fdb/lists.ts';
import { Mdb, type MdbEntry, type MdbUser } from '../../fdb/mdb.ts';
import { MdbReader } from '../../fdb/mdb-table.ts';
import { NextHops } from '../../fdb/nexthops.ts';
import { parseIp } from '../../wire/address.ts';

const DEVICE: MdbUser = { index: 3, name: 'v4', port: 8472, vni: 6, family: 4 };
const G = '239.1.1.1';
const [A, B, C] = ['192.0.2.1', '192.0.2.2', '192.0.2.3'];
const S = '10.0.0.1';

function create(limit = 8) {
  const nextHops = new NextHops({ onNextHop() {}, onRelease() {} }, 64, 0);
  const lists = new Lists(1024, 0);
  const heard: string[] = [];
  const mdb = new Mdb(nextHops, lists, 7, limit, (change, { grp, src = '*', dst, flags }) =>
    heard.push([change, src, grp, dst, ...flags].join(' ')),
  );
  const reader = new MdbReader(mdb.buffer);
  let now = 0;
  const change = (verb: 'add' | 'replace' | 'del', entry: Partial<MdbEntry>) =>
    mdb[verb](DEVICE, { grp: G, dst: A, state: 'permanent', ...entry }, now++);
  /** VTEPs that a frame goes to, sorted; undefined: the FDB decides. */
  const to = (grp: string, src: string, device = DEVICE.index) => {
    const bytes = frame(grp, src);
    const destination = reader.find(device, bytes, 0, bytes.length);
    if (destination === 0) return undefined;
    assert.equal(destination & 1, 1, 'a list');
    return lists
      .members(destination >> 1)
      .map((hop) => nextHops.key(hop).ip)
      .sort();
  };
  return { nextHops, mdb, reader, change, to, heard };
}

/** As short as a frame to a group may be: no more is looked at than the IP header. */
function frame(grp: string, src: string, mac = '01005e010101'): Uint8Array {
  const [to, from] = [parseIp(grp)!, parseIp(src)!];
  const isV4 = to.length === 4;
  const ip = Buffer.alloc(isV4 ? 20 : 40);
  ip.set(from, isV4 ? 12 : 8);
  ip.set(to, isV4 ? 16 : 24);
  return Buffer.concat([Buffer.from(`${mac}020000000001${isV4 ? '0800' : '86dd'}`, 'hex'), ip]);
}

test('source and group go before the group, the group before all groups', () => {
  const { change, to, mdb } = create();
  assert.equal(to(G, S), undefined);
  change('add', { grp: '0.0.0.0', dst: A });
  assert.deepEqual(to(G, S), [A]);
  change('add', { dst: B });
  assert.deepEqual(to(G, S), [B]);
  change('add', { src: S, dst: C });
  assert.deepEqual([to(G, S), to(G, '10.0.0.2'), to('239.1.1.2', S)], [[C], [B], [A]]);
  assert.equal(to(G, S, 4), undefined, 'of another device');
  assert.equal(to('ff05::1', 'fd00::1'), undefined, 'of the other family');
  change('add', { grp: '::', dst: C });
  assert.deepEqual(to('ff05::1', 'fd00::1'), [C]);
  assert.equal(mdb.size(3), 4);
});

test('link-local groups are none of all groups, but may have entries where the kernel lets them', () => {
  const { change, to } = create();
  change('add', { grp: '0.0.0.0' });
  change('add', { grp: '::' });
  for (const grp of ['224.0.0.1', '224.0.0.251', 'ff02::1', 'ff02::fb', 'ff12::5', 'fe80::1'])
    assert.equal(to(grp, grp.includes(':') ? 'fe80::2' : S), undefined, grp);
  for (const grp of ['224.0.1.1', '232.0.0.1', 'ff01::1', 'ff05::2', 'ff0e::1'])
    assert.deepEqual(to(grp, grp.includes(':') ? 'fe80::2' : S), [A], grp);
  change('add', { grp: 'ff02::fb', dst: B });
  assert.deepEqual(to('ff02::fb', 'fe80::2'), [B]);
});

test('looks at whole, untagged IP headers behind a multicast MAC only', () => {
  const { change, reader } = create();
  change('add', { grp: '0.0.0.0' });
  const find = (bytes: Uint8Array, length = bytes.length) => reader.find(3, bytes, 0, length) !== 0;
  assert.equal(find(frame(G, S)), true);
  assert.equal(find(frame(G, S, 'ffffffffffff')), false, 'broadcast');
  for (let length = 14; length < 34; length++) assert.equal(find(frame(G, S), length), false, `${length} bytes`);
  const tagged = Buffer.concat([Buffer.from('01005e01010102000000000181000005', 'hex'), frame(G, S).subarray(12)]);
  assert.equal(find(tagged), false, 'tagged');
});

test('several remotes of a group, which come and go', () => {
  const { change, to, mdb, nextHops } = create();
  change('add', { dst: A });
  change('add', { dst: B, dst_port: 4789, vni: 77 });
  assert.deepEqual(to(G, S), [A, B]);
  assert.deepEqual(
    mdb.show(DEVICE).map(({ dst, dst_port, vni }) => [dst, dst_port, vni]),
    [
      [B, 4789, 77],
      [A, undefined, undefined],
    ],
    'the last added first',
  );
  assert.throws(() => change('add', { dst: B }), {
    errno: 'EEXIST',
    message: 'Error: vxlan: Replace not specified and MDB remote entry already exists.',
  });
  change('replace', { dst: B });
  assert.equal(mdb.show(DEVICE)[0]!.vni, undefined);
  assert.equal(nextHops.size, 2, 'the old next hop is given back');
  change('del', { dst: A });
  assert.deepEqual(to(G, S), [B]);
  change('del', { dst: B });
  assert.equal(to(G, S), undefined);
  assert.deepEqual([nextHops.size, mdb.size(3)], [0, 0]);
});

test('a source list makes an entry for each source', () => {
  const { change, to, mdb, nextHops } = create();
  change('add', { dst: A, filter_mode: 'include', source_list: [S, '10.0.0.2'] });
  assert.deepEqual([to(G, S), to(G, '10.0.0.2')], [[A], [A]]);
  assert.deepEqual(to(G, '10.0.0.9'), [], 'an entry whose remotes do not want it: dropped, not flooded');
  change('add', { dst: B });
  assert.deepEqual(
    [to(G, S), to(G, '10.0.0.9')],
    [[A], [B]],
    'as in the kernel the source has an entry, and B is not in it',
  );
  change('replace', { dst: A, filter_mode: 'exclude', source_list: ['10.0.0.2', '10.0.0.3'] });
  assert.deepEqual([to(G, S), to(G, '10.0.0.2'), to(G, '10.0.0.3')], [[A, B], [], []]);
  const flags = mdb.get(DEVICE, { grp: G, src: '10.0.0.3' }).map((record) => record.flags);
  assert.deepEqual(flags, [['blocked']]);
  change('del', { dst: A });
  assert.deepEqual([to(G, '10.0.0.2'), nextHops.size, mdb.size(3)], [[B], 1, 1]);
  mdb.flush(DEVICE, 99);
  assert.deepEqual([nextHops.size, mdb.size(3), to(G, S)], [0, 0, undefined]);
});

test('what is refused leaves all as it was', () => {
  const { change, mdb, nextHops, to } = create(4);
  change('add', { dst: A });
  change('add', { src: '10.0.0.5', dst: B });
  const before = mdb.show(DEVICE);
  // The (S, G) of the second source is there already.
  assert.throws(() => change('add', { dst: B, filter_mode: 'include', source_list: ['10.0.0.4', '10.0.0.5'] }), {
    errno: 'EEXIST',
  });
  const sources = ['10.0.0.6', '10.0.0.7', '10.0.0.8'];
  assert.throws(() => change('add', { dst: C, filter_mode: 'include', source_list: sources }), { errno: 'ENOSPC' });
  assert.deepEqual(mdb.show(DEVICE), before);
  assert.deepEqual([nextHops.size, to(G, '10.0.0.4')], [2, [A]]);
});

for (const [entry, errno, message] of [
  [{ state: 'temp' }, 'EINVAL', 'Error: vxlan: MDB entry must be permanent.'],
  [{ state: undefined }, 'EINVAL', 'Error: vxlan: MDB entry must be permanent.'],
  [{ dst: undefined }, 'EINVAL', 'Error: vxlan: Missing remote destination IP address.'],
  [{ grp: '192.0.2.1' }, 'EINVAL', 'Error: IPv4 entry group address is not multicast or 0.0.0.0.'],
  [{ grp: '0.0.0.7' }, 'EINVAL', 'Error: IPv4 entry group address is not multicast or 0.0.0.0.'],
  [{ grp: '224.0.0.9' }, 'EINVAL', 'Error: IPv4 entry group address is local multicast.'],
  [{ grp: 'ff02::1' }, 'EINVAL', 'Error: IPv6 entry group address is link-local all nodes.'],
  [{ grp: 'fd00::1' }, 'EINVAL', 'Error: vxlan: Group address is not multicast.'],
  [{ src: '239.0.0.1' }, 'EINVAL', 'Error: vxlan: IPv4 multicast source address is not allowed.'],
  [{ src: 'fd00::1' }, 'EINVAL', 'Error: vxlan: IPv4 invalid source address length.'],
  [{ grp: '0.0.0.0', src: S }, 'EINVAL', 'Error: vxlan: Source cannot be specified for the all-zeros entry.'],
  [{ src: S, filter_mode: 'include' }, 'EINVAL', 'Error: vxlan: Filter mode can only be set for (*, G) entries.'],
  [{ src: S, source_list: [S] }, 'EINVAL', 'Error: vxlan: Source list can only be set for (*, G) entries.'],
  [{ source_list: [S] }, 'EINVAL', 'Error: vxlan: Source list cannot be set without filter mode.'],
  [{ filter_mode: 'include' }, 'EINVAL', 'Error: vxlan: Cannot add (*, G) INCLUDE with an empty source list.'],
  [{ dst: 'fd00::1' }, 'EAFNOSUPPORT', 'RTNETLINK answers: Address family not supported by protocol'],
  [{ src_vni: 7 }, 'EOPNOTSUPP', 'src_vni 7: v4 has VNI 6 only, uvxlan has a device for each VNI'],
] as [Partial<MdbEntry>, string, string][]) {
  test(`refused: ${JSON.stringify(entry)}`, () => {
    const { change, mdb, nextHops } = create();
    assert.throws(() => change('add', entry), { errno, message });
    assert.deepEqual([mdb.size(3), nextHops.size], [0, 0]);
  });
}

test('what is not there', () => {
  const { change, mdb } = create();
  assert.throws(() => change('del', {}), { errno: 'ENOENT', message: 'Error: vxlan: Did not find MDB entry.' });
  change('add', { src_vni: 6 });
  assert.throws(() => change('del', { dst: B }), {
    errno: 'ENOENT',
    message: 'Error: vxlan: Did not find MDB remote entry.',
  });
  assert.throws(() => mdb.get(DEVICE, { grp: '239.9.9.9' }), { message: 'Error: vxlan: MDB entry not found.' });
});

test('flush takes what is selected, of one device', () => {
  const { change, mdb } = create();
  change('add', { dst: A });
  change('add', { dst: B, dst_port: 4789 });
  change('add', { grp: '239.2.2.2', dst: B, vni: 9 });
  mdb.add({ ...DEVICE, index: 4, name: 'v5' }, { grp: G, dst: B, state: 'permanent' }, 5);
  const left = () => mdb.show(DEVICE).map(({ grp, dst }) => `${grp} ${dst}`);
  mdb.flush(DEVICE, 6, { src_vni: 5 });
  mdb.flush(DEVICE, 6, { dst: C });
  assert.equal(left().length, 3);
  mdb.flush(DEVICE, 6, { dst: B, dst_port: 4789 });
  assert.deepEqual(left(), [`239.2.2.2 ${B}`, `${G} ${A}`]);
  mdb.flush(DEVICE, 7, { vni: 9 });
  assert.deepEqual(left(), [`${G} ${A}`]);
  mdb.flush(DEVICE, 8);
  assert.deepEqual([left(), mdb.size(4)], [[], 1]);
});

test('each remote that comes, changes or goes is told, and what is refused is not', () => {
  const { mdb, change, heard } = create();
  change('add', {});
  change('add', { dst: B });
  assert.throws(() => change('add', {}), { errno: 'EEXIST' });
  change('replace', { dst: B, dst_port: 4790 });
  change('replace', { dst: B, dst_port: 4790 });
  assert.deepEqual(heard.splice(0), [`added * ${G} ${A}`, `added * ${G} ${B}`, `changed * ${G} ${B}`]);
  change('replace', { dst: C, filter_mode: 'exclude', source_list: [S] });
  assert.deepEqual(heard.splice(0), [`added ${S} ${G} ${C} blocked`, `added * ${G} ${C}`]);
  change('del', { dst: C });
  mdb.flush(DEVICE, 9);
  assert.deepEqual(
    heard.sort(),
    [`deleted * ${G} ${A}`, `deleted * ${G} ${B}`, `deleted * ${G} ${C}`, `deleted ${S} ${G} ${C}`].map((line) =>
      line.includes(S) ? `${line} blocked` : line,
    ),
  );
});
