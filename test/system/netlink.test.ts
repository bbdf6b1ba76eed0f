import assert from 'node:assert/strict';
import test from 'node:test';
import { fileURLToPath } from 'node:url';
import { Network } from '../../cli/lab/network.ts';
import { lacking } from '../net/requirements.ts';

const NFTABLES = fileURLToPath(new URL('../../system/nftables.js', import.meta.url));

test("the ruleset's generation changes with every change of iptables and nft, and not by reading", {
  skip: lacking('nft', 'iptables'),
}, async (t) => {
  const host = Network.build(t, { hosts: { host: {} } }).host('host');
  // A namespace's own process, since a socket is of the namespace that it was opened in.
  const script = `import { RulesetGeneration } from ${JSON.stringify(NFTABLES)};
    import { execSync } from 'node:child_process';
    const ruleset = new RulesetGeneration();
    const seen = process.argv.slice(1).map((command) => { execSync(command); return ruleset.read(); });
    console.log(JSON.stringify(seen));`;
  const commands = ['true', 'iptables -N A', 'iptables -S', 'nft add table ip t', 'nft list ruleset', 'iptables -X A'];
  const arguments_ = ['--input-type=module', '-e', script, ...commands];
  const { stdout } = await host.run([process.execPath, ...arguments_]);
  const seen: number[] = JSON.parse(stdout);
  assert.ok(seen.every(Number.isInteger), stdout);
  const changed = seen.slice(1).map((generation, i) => generation !== seen[i]);
  assert.deepEqual(changed, [true, false, true, false, true]);
});
