import assert from 'node:assert/strict';
import test from 'node:test';
import { Hostility } from './hostile.ts';

/** The same ones each time; bench/fuzz.ts goes on from other seeds. */
const SEED = 20_260_101;
const PACKETS = 40_000;

test(`${PACKETS} hostile packets: no exception, nothing read or written beyond, and counters that add up`, () => {
  const hostility = new Hostility(SEED);
  while (hostility.packets < PACKETS) {
    for (let i = 0; i < 64; i++) hostility.round();
    hostility.assertAddsUp();
  }
  const fates = hostility.fates();
  for (const name of [
    ...['tx_packets', 'tx_segments', 'tx_runt', 'tx_malformed', 'tx_too_big', 'tx_answered', 'rx_frames'],
    ...['rx_outer_malformed', 'rx_outer_checksum', 'rx_invalid_header', 'rx_reserved_bits', 'rx_unknown_vni'],
    ...['rx_inner_truncated', 'rx_invalid_source_mac', 'rx_congestion'],
  ]) {
    assert.ok((fates.get(name) ?? 0) > 0, `${name} of ${JSON.stringify([...fates])}`);
  }
});
