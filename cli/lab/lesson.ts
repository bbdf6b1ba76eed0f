/**
 * A lesson as docs/lessons/N-NAME.md has it, taken apart:
 *
 *   # TITLE                     prose in Markdown, and between it blocks in ``` fences:
 *   sh PLACE [fails]            commands for one host of the lab; the last one's status is to be 0, or with "fails" is not to be
 *   text                        lines that the commands before it have to print, in this order; "..." stands for anything, white space for any
 *   ## Question                 what the reader is asked, once what stands before has run
 *   ## Answer                   why it is so, and commands that show it
 *   <!-- answer: VALUE | PATTERN -->    the answer, and a regular expression that finds it in what the lesson's commands print: of its group, if
 *                                       it has one, VALUE is what it has to have found
 *   <!-- needs: PROGRAM ... -->         programs that the lab does not need without it
 */
export interface Lesson {
  readonly title: string;
  readonly needs: readonly string[];
  /** What comes before the reader's answer, and what comes after. */
  readonly before: readonly Part[];
  readonly after: readonly Part[];
  readonly answer: { readonly value: string; readonly pattern: RegExp };
}

export type Part = string | Commands;

export interface Commands {
  /** Name of the host. */
  readonly place: string;
  readonly script: string;
  readonly fails: boolean;
  readonly expected: string[];
}

export const PLACES = ['left', 'right', 'left-pod', 'right-pod'];

/** Throws Error with the line's number for what is no lesson. */
export function parseLesson(text: string): Lesson {
  const lines = text.split('\n');
  const before: Part[] = [];
  const after: Part[] = [];
  let parts = before;
  let prose: string[] = [];
  const comments = new Map<string, string>();
  const endProse = () => {
    const paragraph = prose.join('\n').trim();
    if (paragraph !== '') parts.push(paragraph);
    prose = [];
  };
  for (let at = 0; at < lines.length; at++) {
    const line = lines[at];
    const wrong = (what: string) => new Error(`line ${at + 1}: ${what}`);
    const comment = /^<!-- (\w+): (.*) -->$/.exec(line);
    const fence = /^```(.*)$/.exec(line);
    if (comment) comments.set(comment[1], comment[2]);
    else if (fence) {
      const end = lines.indexOf('```', at + 1);
      if (end < 0) throw wrong('a block without an end');
      endProse();
      const block = lines.slice(at + 1, end);
      const last = parts.at(-1);
      if (fence[1] !== 'text') parts.push(parseCommands(fence[1], block, wrong));
      else if (typeof last === 'object' && last.expected.length === 0) last.expected.push(...block);
      else throw wrong('text without commands that print it');
      at = end;
    } else {
      if (line === '## Answer') {
        endProse();
        parts = after;
      }
      prose.push(line);
    }
  }
  endProse();
  const title = /^# (.+)$/m.exec(text)?.[1];
  if (title === undefined || !/^## Question$/m.test(text) || parts === before) {
    throw new Error('a lesson has a title, a question and an answer');
  }
  const answer = comments.get('answer')?.match(/^(.+?) \| (.+)$/);
  if (!answer) throw new Error('a lesson has a line <!-- answer: VALUE | PATTERN -->');
  return {
    title,
    needs: comments.get('needs')?.split(' ') ?? [],
    before,
    after,
    answer: { value: answer[1], pattern: new RegExp(answer[2], 'm') },
  };
}

function parseCommands(info: string, lines: readonly string[], wrong: (what: string) => Error): Commands {
  const [language, place, mode, ...more] = info.split(' ');
  if (language !== 'sh' || (mode !== undefined && mode !== 'fails') || more.length > 0) {
    throw wrong(`"${info}" is no block of a lesson: "sh PLACE [fails]" and "text" are`);
  }
  if (!PLACES.includes(place)) throw wrong(`"${place ?? ''}" is no place of the lab: ${PLACES.join(', ')} are`);
  return { place, script: lines.join('\n'), fails: mode === 'fails', expected: [] };
}

/** The first of the expected lines that `output` does not have after those before it; undefined when it has them all. */
export function firstMissing(expected: readonly string[], output: string): string | undefined {
  const lines = output.split('\n');
  let next = 0;
  return expected.find((wanted) => {
    const found = lines.findIndex((line, at) => at >= next && linePattern(wanted).test(line));
    next = found + 1;
    return found < 0;
  });
}

function linePattern(wanted: string): RegExp {
  const words = wanted.trim().split(/\s+/);
  const literal = words.map((word) => word.replace(/[\\^$.*+?()[\]{}|]/g, '\\$&').replaceAll('\\.\\.\\.', '.*'));
  return new RegExp(literal.join('\\s+'));
}

/** Why the answer on record is not what the lesson's commands have printed; undefined when it is. */
export function answerFault({ value, pattern }: Lesson['answer'], output: string): string | undefined {
  const found = pattern.exec(output);
  if (!found) return `nothing that was printed matches ${pattern}`;
  if (found[1] !== undefined && found[1] !== value)
    return `the answer is said to be ${value}, what was printed says ${found[1]}`;
  return undefined;
}
