/** The lab from its beginning to its end: builds the nodes, sends, shows what there was to see, and takes all away again. */
import { setTimeout as sleep } from 'node:timers/promises';
import { dissect } from '../../packets/dissect.ts';
import { packetText } from '../explain/text.ts';
import { bold, complain, print } from '../output.ts';
import { capturePing } from './capture.ts';
import { commandsText } from './commands.ts';
import type { Lesson } from './lesson.ts';
import { askReader, runLesson } from './lesson-run.ts';
import { bulkTransfer, iperf3, ping } from './measure.ts';
import { sweep } from './namespace.ts';
import type { Network } from './network.ts';
import {
  buildNetwork,
  introduceTo,
  kernelNode,
  LEFT,
  linkOf,
  type Node,
  type Plan,
  RIGHT,
  resolved,
  runsUvxlan,
  uvxlanNode,
} from './nodes.ts';
import { startPage } from './page.ts';
import { missing } from './programs.ts';
import { DRAWING, pingText, seenText } from './report.ts';
import { isInside } from './user-namespace.ts';

/** After the last request ping waits for as long as its interval: a busy machine answers late, and that is no loss. */
const PINGS = { count: 10, interval: 0.1 };
/** Of TCP, each way. */
const SECONDS = 1;
/** Sent each way where there is no iperf3. */
const BULK = 64 * 1024 * 1024;
const COUNTING = `\
  A frame may be one of up to 64 KB, to be cut up on its way (TSO): few frames, many bytes.
  The kernel counts a frame's bytes without the 14 of its Ethernet header.`;

/** Returns the exit status; with `stay` when a signal has come. `web`: where the page is served then. */
export function runLab(stay: boolean, web: { readonly address: string; readonly port: number }): Promise<number> {
  return inLab(async (lab) => {
    await lab.show();
    if (stay) await lab.stay(web);
  });
}

/** A lesson instead of the tour. Returns the exit status. */
export function teachLesson(lesson: Lesson): Promise<number> {
  return inLab((lab) => lab.teach(lesson));
}

async function inLab(work: (lab: Lab) => Promise<void>): Promise<number> {
  const lab = new Lab();
  try {
    await work(lab);
    return 0;
  } catch (error) {
    // It may have been Ctrl-C, which ends the commands that run, too: its handler, which is next, ends the lab then.
    await sleep(50);
    complain(`the lab failed: ${lab.explain(error)}`);
    return 1;
  } finally {
    lab.remove();
  }
}

class Lab {
  readonly #start = Date.now();
  #network: Network | undefined;
  #nodes: Node[] = [];
  #staying = false;

  constructor() {
    // They come before the handlers of namespace.ts, which end this process with the signal's status.
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => this.#interrupted());
  }

  /** Throws when anything does not work. */
  async show(): Promise<void> {
    const swept = sweep();
    if (swept.length > 0) print(`Removed what an earlier run left behind: ${swept.join(', ')}\n`);
    print(`${bold('Two nodes, a pod on each, and a VXLAN between the nodes')}\n\n${DRAWING}\n`);
    const [left, right] = await this.#build();
    const packet = await this.#measure(left, right);
    print(`\n${bold(`What ${left.vtep.device} has counted`)}\n${await seenText([left, right])}`);
    print(COUNTING);
    print(`\n${bold(`One of the pings on right's eth0, ${packet.length} bytes`)}\n${packetText(dissect(packet))}`);
  }

  /** Throws when the lab does not work, or not as the lesson says. */
  async teach(lesson: Lesson): Promise<void> {
    print(`${DRAWING}\n`);
    const [, right] = await this.#build();
    if (runsUvxlan(right)) throw new Error("the lessons want the kernel's VXLAN on the right node");
    print('');
    const isTerminal = process.stdin.isTTY === true && process.stdout.isTTY === true;
    await runLesson(lesson, {
      host: (place) => this.#network!.host(place),
      print,
      ask: isTerminal ? askReader : async () => undefined,
    });
  }

  /** Stays until a signal; throws when a daemon ends. */
  async stay(web: { readonly address: string; readonly port: number }): Promise<void> {
    const [left, right] = this.#nodes;
    await this.#servePage(web.address, web.port);
    print(`\n${bold(`Try, in another terminal ${isInside() ? 'as the same user' : 'as root'}`)}`);
    print(`${commandsText(left, right)}\n`);
    print('The lab stays until Ctrl-C.');
    this.#staying = true;
    while (this.#nodes.every((node) => !runsUvxlan(node) || node.vtep.daemon.exit === undefined)) await sleep(200);
    throw new Error('a daemon has ended');
  }

  async #servePage(address: string, port: number): Promise<void> {
    try {
      const { url } = await startPage(address, port, this.#nodes.filter(runsUvxlan));
      print(`\n${bold('See it in a browser')}\n  ${url}`);
    } catch (error) {
      print(`\nThere is no page: ${(error as Error).message} (uvxlan lab --web ADDR:PORT)`);
    }
  }

  /** What went wrong, in one sentence. */
  explain(error: unknown): string {
    for (const { plan, vtep } of this.#nodes.filter(runsUvxlan)) {
      const { exit, output } = vtep.daemon;
      if (exit)
        return `${plan.name}'s uvxlan has ended (${exit.signal ?? exit.status}), its last words: ${gist(output)}`;
    }
    return gist(error instanceof Error ? error.message : String(error));
  }

  remove(): void {
    this.#network?.remove();
  }

  async #build(): Promise<[Node, Node]> {
    this.#network = buildNetwork();
    this.#say('namespaces, bridges, pods and the link between the nodes are there');
    const left = await this.#startUvxlan(LEFT);
    const kernel = kernelNode(this.#network, RIGHT);
    if (kernel) this.#say("right: the kernel's VXLAN");
    const right = kernel ?? (await this.#startUvxlan(RIGHT, ', because this kernel has no VXLAN'));
    this.#nodes = [left, right];
    await introduce(left, right);
    await introduce(right, left);
    this.#say('each node knows the other: FDB entry, neighbour and route');
    return [left, right];
  }

  async #startUvxlan(plan: Plan, reason = ''): Promise<Node> {
    const node = await uvxlanNode(this.#network!, plan);
    const { uplink, reason: why, workers } = (await linkOf(node)).uvxlan;
    this.#say(`${plan.name}: uvxlan${reason}; uplink ${uplink} (${why}), workers ${workers}`);
    return node;
  }

  /** Returns one of the pings, as it passed between the nodes. */
  async #measure(left: Node, right: Node): Promise<Uint8Array> {
    const captured = await capturePing(right.host, 'eth0');
    const result = await ping(left.pod, right.plan.pod, PINGS);
    const what = `ping ${left.pod.name} -> ${right.pod.name}: ${pingText(result)}`;
    if (result.received < result.sent) throw new Error(what);
    this.#say(what);
    const packet = await captured();
    for (const [from, to] of [
      [left, right],
      [right, left],
    ]) {
      this.#say(`TCP ${from.pod.name} -> ${to.pod.name}: ${await transfer(from, to)}`);
    }
    return packet;
  }

  #say(text: string): void {
    const seconds = ((Date.now() - this.#start) / 1000).toFixed(1);
    print(`${seconds.padStart(5)} s  ${text}`);
  }

  #interrupted(): void {
    print('\nThe lab is being removed.');
    if (this.#staying) process.exit(0);
  }
}

async function introduce(node: Node, other: Node): Promise<void> {
  await introduceTo(node, other);
  if (runsUvxlan(node)) await resolved(node);
}

/** One TCP stream; what it made. */
async function transfer(from: Node, to: Node): Promise<string> {
  const gigabits = (bitsPerSecond: number) => `${(bitsPerSecond / 1e9).toFixed(1)} Gbit/s`;
  if (missing('iperf3')) {
    const { bitsPerSecond, bytes } = await bulkTransfer(from.pod, to.pod, to.plan.pod, BULK);
    return `${gigabits(bitsPerSecond)} (${bytes / 2 ** 20} MB with our own program, every byte checked; ${missing('iperf3')})`;
  }
  const { bitsPerSecond, retransmits } = await iperf3(from.pod, to.pod, to.plan.pod, { seconds: SECONDS });
  return `${gigabits(bitsPerSecond)} (iperf3, ${SECONDS} s, ${retransmits} retransmits)`;
}

/** A sentence of ours that a command has printed; else all of the error in a line. */
function gist(text: string): string {
  const own = text.match(/^uvxlan: .*$/gm)?.at(-1);
  return (own?.slice('uvxlan: '.length) ?? text.replace(/\s+/g, ' ')).slice(0, 500);
}
