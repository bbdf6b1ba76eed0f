// Run by page.test.ts inside a network namespace: looks at the page in a real browser, and prints what it saw as JSON.
//   node page-browser.js URL [SCREENSHOT]

import { type Browser, chromium, type Page } from 'playwright-core';
import { enhancedPacket, interfaceDescription, OUTBOUND, sectionHeader } from '../../packets/pcapng.ts';

export interface Seen {
  /** What the page wrote to the console, and errors of its scripts. */
  readonly complaints: readonly string[];
  readonly status: string;
  /** Points of the first chart, and some seconds later. */
  readonly points: readonly number[];
  readonly drops: string;
  /** What the microscope shows of the packet that was dropped last. */
  readonly dropped: { readonly packet: string; readonly notes: string };
  /** What the topology says, with rates on its edges. */
  readonly topology: string;
  readonly fdb: { readonly all: string; readonly found: string };
  readonly packets: readonly string[];
  /** Texts of the steps of an outgoing packet, from the first to the last. */
  readonly steps: readonly string[];
  /** What lights up when a field has the focus, by keyboard alone: its name, its bytes. */
  readonly lit: readonly [name: string, bytes: string];
  /** Of the data of a packet whose payload is a script. */
  readonly payload: string;
  /** Of a capture that the reader opens, whole and cut off: what the page says of each, and a packet of the first. */
  readonly opened: readonly [whole: string, packet: string, cut: string, nonsense: string];
  /** What the FDB's table tells of the past of a MAC. */
  readonly history: string;
  readonly injected: number;
  /** How wide the page is on a screen of 360. */
  readonly narrow: number;
}

const WAIT = { timeout: 20_000 };

/** Debian's, which fetches nothing from outside. */
export function launchBrowser(): Promise<Browser> {
  return chromium.launch({
    executablePath: '/usr/bin/chromium',
    args: [
      '--no-sandbox',
      '--disable-gpu',
      '--disable-quic',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
    ],
  });
}

async function look(url: string, screenshot: string | undefined): Promise<Seen> {
  const browser = await launchBrowser();
  try {
    const page = await browser.newPage({ viewport: { width: 1200, height: 900 } });
    const complaints: string[] = [];
    page.on('console', (message) => complaints.push(message.text()));
    page.on('pageerror', ({ message }) => complaints.push(message));
    await page.goto(url);
    await page.waitForSelector('#devices details', WAIT);
    await until(async () => (await points(page)) >= 1);
    const first = await points(page);
    await until(async () => (await points(page)) > first);
    const seen = {
      status: await text(page, '#status'),
      points: [first, await points(page)],
      drops: await text(page, '#drop-list'),
      dropped: await lastDrop(page),
      topology: await topology(page),
      fdb: await searchFdb(page),
      history: await history(page),
      ...(await throughMicroscope(page)),
      payload: await payload(page),
      opened: await openCaptures(page),
      injected: await page.evaluate<number>("document.querySelectorAll('main script, main b, main img').length"),
    };
    if (screenshot) await page.screenshot({ path: screenshot, fullPage: true });
    await page.setViewportSize({ width: 360, height: 700 });
    await page.waitForTimeout(300); // the charts are drawn anew
    const narrow = await page.evaluate<number>('document.documentElement.scrollWidth');
    return { ...seen, narrow, complaints };
  } finally {
    await browser.close();
  }
}

/** The page's policy forbids to have the browser evaluate a condition. */
async function until(condition: () => Promise<boolean>): Promise<void> {
  const end = performance.now() + WAIT.timeout;
  while (!(await condition())) {
    if (performance.now() > end) throw new Error(`not within ${WAIT.timeout} ms: ${condition}`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

async function points(page: Page): Promise<number> {
  return Number(await page.getAttribute('.uplot', 'data-points'));
}

async function text(page: Page, selector: string): Promise<string> {
  return (await page.textContent(selector, WAIT)) ?? '';
}

async function lastDrop(page: Page): Promise<Seen['dropped']> {
  await page.click('.drop button:visible', WAIT);
  await page.waitForSelector('.layer .field', WAIT);
  return { packet: await text(page, '.packets button'), notes: await text(page, '.view ul') };
}

/** As soon as the edge of a VTEP has a rate. */
async function topology(page: Page): Promise<string> {
  await page.waitForSelector('.edge.busy', { ...WAIT, state: 'attached' });
  return text(page, '#map svg');
}

async function searchFdb(page: Page): Promise<Seen['fdb']> {
  await page.waitForSelector('#table-view tbody tr', WAIT);
  const all = await text(page, '#table-view p span');
  await page.fill('#table-view input', '02:00:00:00:00:02');
  await until(async () => (await text(page, '#table-view p span')) !== all);
  return { all, found: await text(page, '#table-view tbody') };
}

async function history(page: Page): Promise<string> {
  await page.click('#table-view tbody button');
  await page.waitForSelector('#table-view ol li', WAIT);
  return text(page, '#table-view div:last-child');
}

async function openCaptures(page: Page): Promise<Seen['opened']> {
  const frame = Buffer.from(`ffffffffffff0200000000010806${'00'.repeat(28)}`, 'hex');
  const packet = enhancedPacket({
    interface: 0,
    time: 1e12,
    bytes: frame,
    length: 42,
    direction: OUTBOUND,
    comments: ['<b>'],
    lost: 0,
  });
  const whole = Buffer.concat([
    sectionHeader('test'),
    interfaceDescription('<i>x</i>', '', { snapLength: 65535, filter: '' }),
    packet,
  ]);
  const says = async (buffer: Buffer): Promise<string> => {
    const before = await text(page, '#microscope-view [role=status]');
    await page.fill('#microscope-view input[type=search]', '');
    await page.setInputFiles('#microscope-view input[type=file]', { name: 'x.pcapng', mimeType: '', buffer });
    await until(
      async () => ![before, 'reading x.pcapng …'].includes(await text(page, '#microscope-view [role=status]')),
    );
    return text(page, '#microscope-view [role=status]');
  };
  const first = await says(whole);
  const button = await text(page, '.packets button');
  return [first, button, await says(Buffer.concat([whole, packet.subarray(0, 40)])), await says(Buffer.from('<html>'))];
}

/** By keyboard alone: to the button, into the list, to a packet, through its steps, along its fields. */
async function throughMicroscope(page: Page): Promise<Pick<Seen, 'packets' | 'steps' | 'lit'>> {
  await page.focus('#microscope-view select');
  await page.keyboard.press('Tab');
  await page.keyboard.type('icmp');
  await page.keyboard.press('Tab');
  await page.keyboard.press('Enter');
  await page.waitForSelector('.packets button:has-text("out VXLAN")', WAIT);
  const packets = await page.$$eval('.packets button', (all) => all.map(({ textContent }) => textContent ?? ''));
  await page.keyboard.press('Tab'); // past the choice of a file
  await page.keyboard.press('Tab');
  const out = packets.findIndex((packet) => packet.includes(' out VXLAN | '));
  for (let i = 0; i < out; i++) await page.keyboard.press('ArrowDown');
  await page.keyboard.press('Enter');
  await page.waitForSelector('.step', WAIT);
  await page.focus('.steps button');
  await page.keyboard.press('Enter');
  const steps = [await text(page, '.step')];
  for (let last = ''; steps.at(-1) !== last; ) {
    last = steps.at(-1)!;
    await page.keyboard.press('ArrowRight');
    const now = await text(page, '.step');
    if (now !== last) steps.push(now);
  }
  await page.focus('.layers .field');
  await page.keyboard.press('ArrowDown');
  const name = await text(page, '.field.lit .name');
  const bytes = (await page.$$eval('.bytes .lit', (all) => all.map(({ textContent }) => textContent))).join(' ');
  return { packets, steps, lit: [name, bytes] };
}

async function payload(page: Page): Promise<string> {
  await page.fill('#microscope-view input', 'udp port 9');
  await page.click('text=Look at packets');
  await page.waitForSelector('#microscope-view [role=status]:has-text("pick one")', WAIT);
  await page.click('.packets button');
  await page.waitForSelector('.layer', WAIT);
  return text(page, '.layer:last-child');
}

if (process.argv[1] === import.meta.filename) {
  console.log(JSON.stringify(await look(process.argv[2], process.argv[3])));
}
