import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import test from 'node:test';
import { fileURLToPath } from 'node:url';
import { readConfig } from '../control/config.ts';
import { parseNodeList } from '../control/flannel/node-list.ts';

const directory = fileURLToPath(new URL('../../examples/', import.meta.url));
const isCluster = (name: string) => name.startsWith('flannel');
const files = readdirSync(directory).filter((name) => name.endsWith('.yaml') && !isCluster(name));

test('there are examples', () => assert.ok(files.length > 0));

for (const file of files) {
  test(`examples/${file} is a valid configuration`, () => {
    const { devices, notes } = readConfig(`${directory}${file}`);
    assert.ok(devices.every((device) => device.fdb.length > 0 || device.remote !== null));
    assert.deepEqual(notes, []);
  });
}

test('examples/flannel.yaml is a valid cluster', () => {
  const { leases } = parseNodeList(readFileSync(`${directory}flannel.yaml`, 'utf8'), 'flannel.yaml');
  assert.equal(leases.length, 3);
});
