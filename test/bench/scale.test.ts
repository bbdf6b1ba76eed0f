import assert from 'node:assert/strict';
import test from 'node:test';
import { clusterText } from '../../bench/scale/cluster.ts';
import { type Scale, scaleHtml, scaleText } from '../../bench/scale.ts';

const vteps = { VTEPs: 10_000, insert: 5000, 'encap, random destinations': 300, 'resident MB': 12.34 };
const flood = { members: 1000, 'a frame': 200_000, 'a copy': 200 };

test('a cluster on paper', () => {
  const [memory, updates, broadcast] = clusterText({ nodes: 10_000, vteps, flood });
  assert.match(memory!, /10,000 nodes, 12\.3 MB/);
  assert.match(updates!, /take 50 ms in the writer, 5\.0 us each.* 0\.23 changes a second/);
  // 2 ms of copies and 57 ms of writes.
  assert.match(broadcast!, /10,000 packets, 2\.0 ms .* 57 ms more at 5\.7 us .* 16 broadcasts/);
});

test('curves as Markdown and as a page', () => {
  const curve = {
    title: 'Entries',
    why: 'Because.',
    points: [10, 100].map((entries) => ({ entries, lookup: entries / 2 })),
  };
  const scale: Scale = { environment: 'a machine', curves: [curve], cluster: ['small'] };
  assert.match(
    scaleText(scale),
    /\| entries \| lookup, ns \|\n\|---\|---\|\n\| 10 \| 5\.00 \|\n\| 100 \| 50\.0 \|\n\nBecause\./,
  );
  const html = scaleHtml(scale);
  assert.match(html, /<path class="line c0" d="M[\d.]+ [\d.]+L[\d.]+ [\d.]+">/);
  assert.doesNotMatch(html, /https?:|<script/);
});
