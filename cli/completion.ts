import { VERSION } from '../control/protocol.ts';
import { UsageError } from '../control/words.ts';
import { COMMANDS, HELP as OVERVIEW } from './commands.ts';
import { print } from './output.ts';

export const HELP = `Usage: uvxlan completion { bash | zsh | fish | man }
Prints a completion script for a shell, or the manual page; both follow from the help texts of all commands.
  bash   source <(uvxlan completion bash), or into /usr/share/bash-completion/completions/uvxlan
  zsh    the same, into a directory of $fpath as _uvxlan
  fish   into ~/.config/fish/completions/uvxlan.fish
  man    uvxlan completion man | man -l -
Exit status: 0, 2 when the words are wrong.`;

/** Help texts by command. */
type Helps = ReadonlyMap<string, string>;

const WRITERS: Readonly<Record<string, (helps: Helps) => string>> = { bash, zsh, fish, man };

export async function run(args: string[]): Promise<number> {
  const [target, ...more] = args;
  if (target === undefined || !Object.hasOwn(WRITERS, target) || more.length > 0) {
    throw new UsageError(`one of ${Object.keys(WRITERS).join(', ')} is expected, see uvxlan completion --help`);
  }
  const modules = await Promise.all(
    Object.entries(COMMANDS).map(async ([name, load]) => [name, (await load()).HELP] as const),
  );
  print(WRITERS[target](new Map(modules)));
  return 0;
}

/** What may follow a command: the options that its help names, and the plain words of its usage. */
export function wordsOf(command: string, help: string): string[] {
  const lines = help.split('\n');
  const first = lines.findIndex((line, i) => i > 0 && !/^( |[A-Z]+ :=)/.test(line));
  const usage = lines.slice(0, first < 0 ? undefined : first).join('\n');
  const plain = usage.replace(/^Usage:/, '').match(/(?<![\w.:/<-])[a-z][a-z0-9_]*(?![\w:./-])/g) ?? [];
  const options = help.match(/(?<![\w-])--[a-z][a-z0-9-]*/g) ?? [];
  const words = [...plain, ...options, '--help'].filter((word) => word !== 'uvxlan' && word !== command);
  return [...new Set(words)].sort();
}

function bash(helps: Helps): string {
  const cases = [...helps].map(([name, help]) => `    ${name}) words="${wordsOf(name, help).join(' ')}" ;;`);
  return `# Completion of uvxlan ${VERSION} for bash: uvxlan completion bash
_uvxlan() {
  local words command word
  for word in "\${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
    case $word in -*) ;; *) command=$word; break ;; esac
  done
  case $command in
${cases.join('\n')}
    *) words="${[...helps.keys()].join(' ')} --help --version" ;;
  esac
  COMPREPLY=($(compgen -W "$words" -- "\${COMP_WORDS[COMP_CWORD]}"))
  [ \${#COMPREPLY[@]} -gt 0 ] || compopt -o default 2>/dev/null
}
complete -F _uvxlan uvxlan`;
}

function zsh(helps: Helps): string {
  const cases = [...helps].map(([name, help]) => `    ${name}) compadd -- ${wordsOf(name, help).join(' ')} ;;`);
  return `#compdef uvxlan
# Completion of uvxlan ${VERSION} for zsh: uvxlan completion zsh
_uvxlan() {
  if (( CURRENT == 2 )); then
    compadd -- ${[...helps.keys()].join(' ')} --help --version
    return
  fi
  case $words[2] in
${cases.join('\n')}
  esac
  _files
}
if [ "$funcstack[1]" = "_uvxlan" ]; then _uvxlan "$@"; else compdef _uvxlan uvxlan; fi`;
}

function fish(helps: Helps): string {
  const lines = [...helps].flatMap(([name, help]) => [
    `complete -c uvxlan -n __fish_use_subcommand -a ${name} -d '${summaryOf(name).replaceAll("'", "\\'")}'`,
    `complete -c uvxlan -n '__fish_seen_subcommand_from ${name}' -a '${wordsOf(name, help).join(' ')}'`,
  ]);
  return [`# Completion of uvxlan ${VERSION} for fish: uvxlan completion fish`, ...lines].join('\n');
}

/** What the overview says of a command. */
function summaryOf(command: string): string {
  return OVERVIEW.match(new RegExp(`^  ${command} +(.+)$`, 'm'))?.[1] ?? '';
}

/** The help texts as they are, section by section: man(7). */
function man(helps: Helps): string {
  const section = (title: string, help: string) => [`.SH "${title}"`, '.nf', ...help.split('\n').map(roff), '.fi'];
  return [
    `.TH UVXLAN 1 "" "uvxlan ${VERSION}" "User Commands"`,
    '.SH NAME',
    'uvxlan \\- userspace VXLAN dataplane',
    ...section('SYNOPSIS', OVERVIEW),
    ...[...helps].flatMap(([name, help]) => section(name.toUpperCase(), help)),
    '.SH "SEE ALSO"',
    '.BR ip-link (8), \\ bridge (8), \\ tc (8)',
  ].join('\n');
}

function roff(line: string): string {
  const text = line.replaceAll('\\', '\\e').replaceAll('-', '\\-');
  return /^[.']/.test(text) ? `\\&${text}` : text;
}
