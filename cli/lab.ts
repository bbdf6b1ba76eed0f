import { UsageError } from '../control/words.ts';
import type { Lesson } from './lab/lesson.ts';
import { listenAddress, takeOptions } from './options.ts';
import { complain, print } from './output.ts';

export const HELP = `Usage: uvxlan lab [ --once ] [ --web ADDR:PORT ]
       uvxlan lab --lesson N
Two nodes in network namespaces on this machine, each with a bridge and a pod, set up as flannel does it: the left one on
uvxlan, the right one on the kernel's VXLAN (on uvxlan where the kernel has none). Shows a ping and TCP from pod to
pod, what was counted, and one packet layer by layer. On a terminal it then stays until Ctrl-C, for you to look around.
Needs root, or user namespaces and a /dev/net/tun that is open to you. Leaves nothing behind.
Options:
  --once           do not stay
  --web ADDR:PORT  where the page is served while it stays, 127.0.0.1:8443 when not given
  --lesson N       one of the lessons of docs/lessons instead, in a lab of its own: its commands run, and it asks a question. Needs the
                   kernel's VXLAN on the right
Exit status: 0 when all worked, 1 after a failure, 2 when the words are wrong.`;

export async function run(args: string[]): Promise<number> {
  const { options, words } = takeOptions(args, ['once', 'web', 'lesson']);
  if (words.length > 0) throw new UsageError(`unknown word "${words[0]}": lab takes none`);
  const web = await listenAddress('--web', options.web ?? '127.0.0.1:8443');
  const lesson = options.lesson === undefined ? undefined : await lessonOf(options.lesson);
  // Debian leaves the directories of ip, bridge and tc out of an ordinary user's PATH.
  process.env.PATH = `${process.env.PATH}:/usr/sbin:/sbin`;
  // The commands that it prints are to find the daemon at its usual place, typed in another terminal.
  delete process.env.UVXLAN_RUNTIME_DIR;
  const { missing } = await import('./lab/programs.ts');
  const user = await import('./lab/user-namespace.ts');
  const lacking =
    missing('ip', 'bridge', 'tc', 'ping', 'nsenter', 'setpriv', ...(lesson?.needs ?? [])) ?? user.tunLacks();
  if (lacking !== undefined) return refuse(lacking);
  if (user.isInside()) {
    user.enter();
  } else if (!user.isPrivileged()) {
    const obstacle = missing('unshare', 'mount') ?? user.userNamespaceLacks();
    if (obstacle !== undefined) return refuse(obstacle);
    print('Not root: the lab runs in a user namespace of its own (unshare -Urnm).');
    return user.runInside();
  }
  const { runLab, teachLesson } = await import('./lab/tour.ts');
  if (lesson) return teachLesson(lesson);
  return runLab(process.stdout.isTTY === true && !options.once, web);
}

/** Throws UsageError when there is no such lesson. */
async function lessonOf(number: string): Promise<Lesson> {
  const { lessonFiles, readLesson } = await import('./lab/lesson-run.ts');
  const files = lessonFiles();
  const file = files.find((name) => name.startsWith(`${number}-`));
  if (file === undefined) throw new UsageError(`there is no lesson "${number}": 1 to ${files.length}`);
  return readLesson(file);
}

function refuse(reason: string): number {
  complain(`the lab cannot run: ${reason}`);
  return 1;
}
