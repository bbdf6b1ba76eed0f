import { isIP } from 'node:net';
import type { Finding } from '../control/doctor/finding.ts';
import type { DaemonView, Question } from '../control/doctor.ts';
import { CommandError } from '../control/protocol.ts';
import { UsageError } from '../control/words.ts';
import { VXLAN_PORT_LINUX } from '../wire/vxlan.ts';
import { connectToDaemon } from './client.ts';
import { takeOptions } from './options.ts';
import { bold, green, print, printJson, red, yellow } from './output.ts';

export const HELP = `Usage: uvxlan doctor [ dev NIC ] [ local ADDRESS ] [ dstport PORT ]
What this machine offers, what is in the way of a tunnel, and what to do about each; changes nothing. Without words it looks
at the devices of the daemon in this network namespace, and where there is none at what a device on the NIC of the default
route would find. With words, at what a device with these would find. As root: without, it says what it cannot see.
  ok    nothing to do
  warn  it works, but slower than it could or not as one may think, or it could not be looked at
  fail  traffic does not get through
Options:
  -j, -json       as JSON: subject, check, status, message, advice      -p, -pretty    indented
Exit status: 0 without a fail, 1 with one, 2 when the words are wrong.`;

const COLOURS = { ok: green, warn: yellow, fail: red };
const CHECK_WIDTH = 11;

export async function run(args: string[]): Promise<number> {
  const { options, words } = takeOptions(args, ['json', 'pretty']);
  const tunnel = parseTunnel(words);
  const { daemon, finding } = await askDaemon();
  const { examine } = await import('../control/doctor.ts');
  const { Host } = await import('../control/host.ts');
  const findings = [finding, ...(await examine(new Host(), { daemon, tunnel }))];
  if (options.json) printJson(findings, options.pretty);
  else printFindings(findings);
  return findings.some(({ status }) => status === 'fail') ? 1 : 0;
}

function parseTunnel(words: readonly string[]): Question['tunnel'] {
  if (words.length === 0) return undefined;
  const tunnel: { dev?: string; local?: string; port: number } = { port: VXLAN_PORT_LINUX };
  for (let i = 0; i < words.length; i += 2) {
    const [word, value] = [words[i], words[i + 1]];
    if (!['dev', 'local', 'dstport'].includes(word)) {
      throw new UsageError(`unknown word "${word}": doctor takes dev NIC, local ADDRESS and dstport PORT`);
    }
    if (value === undefined) throw new UsageError(`"${word}" wants a value`);
    if (word === 'dev') tunnel.dev = value;
    else if (word === 'local') {
      if (isIP(value) === 0) throw new UsageError(`argument "${value}" is wrong: invalid local address`);
      tunnel.local = value;
    } else {
      tunnel.port = Number(value);
      if (!/^\d+$/.test(value) || tunnel.port < 1 || tunnel.port > 65535) {
        throw new UsageError(`argument "${value}" is wrong: invalid dstport, 1 to 65535`);
      }
    }
  }
  return tunnel;
}

/** What the daemon says of itself, and that it does. */
async function askDaemon(): Promise<{ daemon: DaemonView | undefined; finding: Finding }> {
  const about = (status: Finding['status'], message: string): Finding => {
    return { subject: null, check: 'daemon', status, message };
  };
  try {
    const client = await connectToDaemon();
    try {
      const daemon = {
        links: await client.ask<DaemonView['links']>('link show', { name: null }),
        stats: await client.ask<DaemonView['stats']>('stats', { name: null }),
        fdb: await client.ask<DaemonView['fdb']>('fdb show', { dev: null }),
      };
      const names = daemon.links.map(({ ifname }) => ifname).join(', ');
      return { daemon, finding: about('ok', `it answers, and has ${names || 'no device'}`) };
    } finally {
      client.close();
    }
  } catch (error) {
    if (!(error instanceof CommandError)) throw error;
    const { errno, message } = error;
    if (errno === 'ENOENT') return { daemon: undefined, finding: about('ok', 'none runs in this network namespace') };
    const status = errno === 'EACCES' || errno === 'EPERM' ? 'warn' : 'fail';
    return { daemon: undefined, finding: about(status, message) };
  }
}

function printFindings(findings: readonly Finding[]): void {
  let subject: string | null | undefined;
  for (const finding of findings) {
    if (finding.subject !== subject) print(bold(finding.subject ?? 'this machine'));
    subject = finding.subject;
    const { status, check, message, advice } = finding;
    print(`  ${COLOURS[status](status.padEnd(4))}  ${check.padEnd(CHECK_WIDTH)} ${message}`);
    if (advice !== undefined) print(`        ${''.padEnd(CHECK_WIDTH)} -> ${advice}`);
  }
}
