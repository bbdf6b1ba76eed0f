import assert from 'node:assert/strict';
import test from 'node:test';
import { meaning, readEvent } from '../../control/neighbour-event.ts';

const MAC = '02:00:00:00:00:02';

// Lines as iproute2 prints them.
const MEANINGS: [string, string][] = [
  [`192.0.2.2 dev eth0 lladdr ${MAC} managed REACHABLE proto 118 `, `${MAC} managed`],
  [`192.0.2.2 dev eth0 lladdr ${MAC} managed PROBE proto 118 `, `${MAC} managed`],
  [`192.0.2.2 dev eth0 lladdr ${MAC} STALE`, MAC],
  ['192.0.2.2 dev eth0 managed FAILED proto 118 ', 'failed managed'],
  [`192.0.2.2 dev eth0 lladdr ${MAC} FAILED`, 'failed'],
  ['192.0.2.2 dev eth0  INCOMPLETE', 'waiting'],
  [`192.0.2.2 dev eth0 lladdr ${MAC} PERMANENT`, `${MAC} PERMANENT`],
  [`192.0.2.2 dev eth0 lladdr ${MAC} NOARP`, `${MAC} NOARP`],
  [`192.0.2.2 dev eth0 lladdr ${MAC} extern_learn REACHABLE`, `${MAC} extern_learn`],
  [`Deleted 192.0.2.2 dev eth0 lladdr ${MAC} STALE`, 'none'],
];

test('an event of a neighbour, and what of it matters to a path', () => {
  for (const [line, expected] of MEANINGS) {
    assert.deepEqual(readEvent(`[NEIGH]${line}`), { key: '192.0.2.2 eth0', meaning: expected }, line);
  }
  assert.deepEqual(readEvent(`[NEIGH]fe80::2 dev vx-0 lladdr ${MAC} router REACHABLE`), {
    key: 'fe80::2 vx-0',
    meaning: MAC,
  });
});

test('an event means what a reading of the same entry means', () => {
  const read = { mac: MAC, managed: true, externallyLearned: false } as const;
  for (const state of ['REACHABLE', 'PROBE', 'STALE', 'DELAY'] as const) {
    const line = `[NEIGH]192.0.2.2 dev eth0 lladdr ${MAC} managed ${state} proto 118 `;
    assert.equal(readEvent(line)?.meaning, meaning({ ...read, state }));
  }
  assert.equal(meaning(undefined), 'none');
  assert.notEqual(meaning({ ...read, state: 'REACHABLE' }), meaning({ ...read, state: 'REACHABLE', managed: false }));
});

test('lines about anything else are no events of neighbours', () => {
  for (const line of ['[ROUTE]192.0.2.0/24 dev eth0 scope link', '[LINK]2: eth0: <UP> mtu 1500', '']) {
    assert.equal(readEvent(line), undefined);
  }
});
