import assert from 'node:assert/strict';
import test from 'node:test';
import { type FdbSelection, matcher, selectionOf } from '../../control/fdb-selection.ts';
import { FDB_FIELDS } from '../../control/fields.ts';
import type { FdbRecord } from '../../fdb/records.ts';

const RECORD: FdbRecord = { mac: '02:00:00:00:00:01', ifname: 'v1', dst: '192.0.2.1', flags: ['self'], state: '' };
const RECORDS: FdbRecord[] = [
  RECORD,
  { ...RECORD, dst: '192.0.2.2', port: 4789 },
  { ...RECORD, dst: '192.0.2.3', vni: 9, state: 'static' },
  { ...RECORD, dst: '192.0.2.4', viaIf: 'eth0', state: 'permanent', flags: ['self', 'extern_learn'] },
];

const CASES: [FdbSelection, number[]][] = [
  [{}, [1, 2, 3, 4]],
  [{ dst: '192.0.2.2' }, [2]],
  [{ port: 8472 }, [1, 3, 4]],
  [{ port: 4789 }, [2]],
  [{ vni: 7 }, [1, 2, 4]],
  [{ vni: 9 }, [3]],
  [{ via: 'eth0' }, [4]],
  [{ permanent: true }, [4]],
  [{ permanent: false }, [1, 2, 3]],
  [{ static: true }, [3]],
  [{ dynamic: true }, [1, 2]],
  [{ dynamic: false }, [3, 4]],
  [{ extern_learn: true }, [4]],
  [{ extern_learn: false, dynamic: true, port: 8472 }, [1]],
];

for (const [selection, expected] of CASES) {
  test(`selects by ${JSON.stringify(selection)}`, () => {
    const selected = RECORDS.filter(matcher(selection, { port: 8472, vni: 7 }));
    assert.deepEqual(
      selected.map(({ dst }) => Number(dst!.slice(-1))),
      expected,
    );
  });
}

test('what comes over the socket is checked', () => {
  const given = { dst: '192.0.2.1', port: 4789, permanent: false, via: null };
  assert.deepEqual(selectionOf(given, FDB_FIELDS), { dst: '192.0.2.1', port: 4789, permanent: false });
  assert.throws(() => selectionOf({ dst: 'x' }, FDB_FIELDS), /not an IP address/);
  for (const wrong of [{ frob: 1 }, { mac: RECORD.mac }, { permanent: 'yes' }]) {
    assert.throws(() => selectionOf(wrong, FDB_FIELDS), { errno: 'EINVAL' });
  }
});
