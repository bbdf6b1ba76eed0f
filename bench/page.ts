/**
 * The page of a daemon with many peers and FDB entries, under load, in a real browser: first view, frame times, and many clients.
 *   node dist/bench/page.js [PEERS ENTRIES]      (1000 100000 when not given; as root, with Debian's chromium)
 */
import { once } from 'node:events';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Network } from '../cli/lab/network.ts';
import { introduce, kernelVtep, uvxlan, uvxlanVtep } from '../cli/lab/vtep.ts';
import { launchBrowser } from '../test/net/page-browser.ts';
import { LEFT, RIGHT } from '../test/net/pair.ts';
import { macs, macText } from './scale/node.ts';

const WORDS = 'id 1 dev eth0 dstport 8472 nolearning';
const CLIENTS = 1000;
/** Of frame times. */
const SECONDS = 10;

/** Peers are further addresses of the other host, which answers for them. */
async function main(peers: number, entries: number): Promise<void> {
  const undo: (() => void)[] = [];
  const network = Network.build(
    { after: (step: () => void) => void undo.push(step) },
    { hosts: { left: {}, right: {} }, links: [['left eth0 192.0.2.1/24', 'right eth0 192.0.2.2/24']] },
  );
  try {
    const [host, other] = [network.host('left'), network.host('right')];
    const vteps = Array.from({ length: peers }, (_, i) => `10.9.${i >> 8}.${i & 255}`);
    const addresses = file(
      'addresses',
      vteps.map((address) => `address add ${address}/32 dev eth0`),
    );
    other.ip(`-batch ${addresses}`);
    host.ip('route add 10.9.0.0/16 dev eth0');
    const left = await uvxlanVtep(host, { ...LEFT, words: `${WORDS} --web 127.0.0.1:0` }, /the page is at (\S+)/);
    const [, url] = left.daemon.output.match(/the page is at (\S+)/)!;
    const right = kernelVtep(other, { ...RIGHT, words: WORDS });
    await introduce(left, right);
    const lines = Array.from(macs(entries), (low, i) => `add ${macText(low)} dev flannel.1 dst ${vteps[i % peers]}`);
    await uvxlan(host, `fdb -batch ${file('fdb', lines)}`, { timeout: 120_000 });
    console.log(`${peers} peers, ${entries} FDB entries; daemon ${rss(left.daemon.pid!)} MB`);
    const servers = other.spawn(['iperf3', '-s']);
    await sleep(500);
    const load = host.spawn(['iperf3', '-c', right.addresses[0]!, '-t', '120', '-b', '200M']);
    const { stdout } = await host.run([process.execPath, import.meta.filename, '--look', url], { timeout: 180_000 });
    console.log(`${stdout.trimEnd()}\ndaemon ${rss(left.daemon.pid!)} MB afterwards`);
    for (const each of [load, servers]) await each.stop('SIGKILL');
  } finally {
    network.remove();
  }
}

function file(name: string, lines: readonly string[]): string {
  const path = join(tmpdir(), `uvxlan-bench-page-${process.pid}-${name}`);
  writeFileSync(path, `${lines.join('\n')}\n`);
  process.once('exit', () => rmSync(path, { force: true }));
  return path;
}

function rss(pid: number): string {
  const [, kilobytes] = readFileSync(`/proc/${pid}/status`, 'utf8').match(/VmRSS:\s+(\d+)/)!;
  return (Number(kilobytes) / 1024).toFixed(0);
}

/** Inside of the node's namespace. */
async function look(url: string): Promise<void> {
  const browser = await launchBrowser();
  try {
    const page = await browser.newPage({ viewport: { width: 1200, height: 900 } });
    await page.goto('about:blank'); // the browser's own start is not the page's
    let bytes = 0;
    page.on('response', (response) => {
      if (response.url().endsWith('/api/live')) return;
      response.body().then(
        (body) => {
          bytes += body.length;
        },
        () => {},
      );
    });
    const begin = performance.now();
    await page.goto(url);
    const loaded = performance.now() - begin;
    await page.waitForSelector('#devices details');
    const first = performance.now() - begin;
    await page.waitForSelector('#table-view tbody tr');
    await sleep(3_000);
    console.log(
      `first view: loaded after ${loaded.toFixed(0)} ms, the daemon's state there after ${first.toFixed(0)} ms; ${(bytes / 1000).toFixed(0)} kB`,
    );
    await frames(page, 'the page as it stands');
    const search = async (): Promise<void> => {
      for (let i = 0; i < SECONDS; i++) {
        await page.fill('#table-view input', i % 2 ? `02:00:${i}` : '');
        await sleep(1000);
      }
    };
    await Promise.all([frames(page, 'while the FDB is searched'), search()]);
    console.log(`elements of the page: ${await page.evaluate<number>("document.querySelectorAll('*').length")}`);
    await crowd(new URL(url));
    await frames(page, 'beside these clients');
  } finally {
    await browser.close();
  }
}

interface Frames {
  evaluate<T>(script: string): Promise<T>;
}

/** Milliseconds from one frame to the next. */
async function frames(page: Frames, when: string): Promise<void> {
  const times = await page.evaluate<number[]>(`new Promise((resolve) => {
    const times = [];
    let last = performance.now();
    const begin = last;
    const step = (now) => {
      times.push(now - last);
      last = now;
      if (now - begin < ${SECONDS * 1000}) requestAnimationFrame(step); else resolve(times);
    };
    requestAnimationFrame(step);
  })`);
  times.sort((a, b) => a - b);
  const at = (part: number): string => times[Math.min(times.length - 1, Math.floor(times.length * part))]!.toFixed(1);
  const late = times.filter((time) => time > 34).length;
  console.log(
    `frames, ${when}: ${(times.length / SECONDS).toFixed(0)} a second, median ${at(0.5)} ms, 99 % within ${at(0.99)} ms, ` +
      `longest ${at(1)} ms, ${late} later than 34 ms`,
  );
}

/** CLIENTS that listen, half of which never read; then how long another request takes. */
async function crowd({ hostname, port }: URL): Promise<void> {
  const sockets: Socket[] = [];
  let [served, refused] = [0, 0];
  for (let i = 0; i < CLIENTS; i++) {
    const socket = connect({ host: hostname, port: Number(port) });
    sockets.push(socket);
    socket.on('error', () => {});
    await once(socket, 'connect');
    socket.write(`GET /api/live HTTP/1.1\r\nHost: ${hostname}\r\n\r\n`);
    const [head] = (await once(socket, 'data')) as [Buffer];
    if (head.toString().startsWith('HTTP/1.1 200')) served++;
    else refused++;
    if (i % 2) socket.pause();
    else socket.resume();
  }
  await sleep(3_000);
  const begin = performance.now();
  await (await fetch(`http://${hostname}:${port}/api/drops`)).text();
  const took = (performance.now() - begin).toFixed(1);
  console.log(
    `${CLIENTS} clients, of which half do not read: ${served} served, ${refused} refused; another request takes ${took} ms`,
  );
  process.once('exit', () => {
    for (const socket of sockets) socket.destroy();
  });
}

if (process.argv[2] === '--look') {
  await look(process.argv[3]!);
  process.exit();
}
await main(Number(process.argv[2] ?? 1000), Number(process.argv[3] ?? 100_000));
