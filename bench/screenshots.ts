/**
 * Pictures of the page for the README, of a lab that runs: two nodes, traffic between their pods, and a MAC that leads nowhere.
 *   node dist/bench/screenshots.js [DIRECTORY]      (docs/images when not given; as root, with Debian's chromium)
 */
import { mkdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { Page } from 'playwright-core';
import {
  buildNetwork,
  introduceTo,
  kernelNode,
  LEFT,
  type Node,
  RIGHT,
  resolved,
  uvxlanNode,
} from '../cli/lab/nodes.ts';
import { startPage } from '../cli/lab/page.ts';
import { launchBrowser } from '../test/net/page-browser.ts';

const DIRECTORY = fileURLToPath(new URL('../../docs/images', import.meta.url));
/** Seconds of traffic before the first picture: the charts show something then. */
const SECONDS = 25;
/** Pictures stay below 150 kB each. */
const SIZE = { width: 1200, height: 740 };

async function take(directory: string): Promise<void> {
  mkdirSync(directory, { recursive: true });
  const network = buildNetwork();
  try {
    const left = await uvxlanNode(network, LEFT);
    const right = kernelNode(network, RIGHT) ?? (await uvxlanNode(network, RIGHT));
    await introduceTo(left, right);
    await introduceTo(right, left);
    await resolved(left);
    const web = await startPage('127.0.0.1', 0, [left]);
    const traffic = startTraffic(left, right);
    const browser = await launchBrowser();
    try {
      const page = await browser.newPage({ viewport: SIZE });
      await page.goto(web.url);
      await sleep(SECONDS * 1000);
      for (const colorScheme of ['light', 'dark'] as const) {
        await page.emulateMedia({ colorScheme });
        await page.reload();
        await sleep(6_000);
        await picture(page, join(directory, `overview-${colorScheme}.png`));
        await look(page);
        await picture(page, join(directory, `microscope-${colorScheme}.png`));
      }
    } finally {
      await browser.close();
      for (const each of traffic) await each.stop('SIGKILL');
      await web.close();
    }
  } finally {
    network.remove();
  }
}

/** Pings, a TCP stream held at some Mbit/s, and now and then a packet to a MAC that no VTEP is known for. */
function startTraffic(left: Node, right: Node) {
  const { pod } = right.plan;
  left.host.ip(`neigh replace 10.244.1.77 lladdr 02:00:00:00:00:77 dev ${left.vtep.device} nud permanent`);
  left.host.ip(`route add 10.244.77.0/24 via 10.244.1.77 dev ${left.vtep.device} onlink`);
  return [
    right.pod.spawn(['iperf3', '-s']),
    left.pod.spawn(['ping', '-q', '-i', '0.2', pod]),
    left.pod.spawn(['ping', '-q', '-i', '0.5', '10.244.77.1']),
    left.pod.spawn(['sh', '-c', `while :; do iperf3 -c ${pod} -b 40M -t 5; iperf3 -c ${pod} -R -b 25M -t 3; done`]),
  ];
}

async function look(page: Page): Promise<void> {
  await page.fill('#microscope-view input[type=search]', 'icmp and host 10.244.2.2');
  await page.click('text=Look at packets');
  await page.waitForSelector('.packets button:has-text("out VXLAN")');
  await page.click('.packets button:has-text("out VXLAN")');
  await page.waitForSelector('.layer .field');
  await page.locator('.layer .field:has-text("source port")').first().hover();
  await page.locator('#microscope').scrollIntoViewIfNeeded();
  await page.evaluate("document.getElementById('microscope').scrollIntoView()");
}

async function picture(page: Page, path: string): Promise<void> {
  await page.screenshot({ path });
  console.log(`${path}: ${Math.ceil(statSync(path).size / 1000)} kB`);
}

await take(process.argv[2] ?? DIRECTORY);
