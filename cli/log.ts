/** The log of `uvxlan up` and `uvxlan flannel`, as options and environment ask for it. */
import { LOG_FORMATS, LOG_LEVELS, type Log, openLog } from '../control/log.ts';
import { UsageError } from '../control/words.ts';
import { complain } from './output.ts';

export interface CommandLog {
  readonly log: Log;
  /** What the user should know of the words of the command line. */
  readonly note: (message: string) => void;
  /** Runs the command; what ends it is in the log as well when others than people read it. Returns the exit status. */
  readonly run: (command: () => Promise<number>) => Promise<number>;
}

export const LOG_HELP = `  --log-level LEVEL   error, warn, info (the default) or debug; else $UVXLAN_LOG_LEVEL
  --log-format FORMAT   human (the default) or json: an object a line with time, level, msg, and what it is about, as
                    device, peer, worker; else $UVXLAN_LOG_FORMAT`;

/** What is '' or undefined is the environment's, UVXLAN_LOG_LEVEL and UVXLAN_LOG_FORMAT. Throws UsageError. */
export function commandLog(
  level: string | undefined,
  format: string | undefined,
  environment = process.env,
): CommandLog {
  const options = {
    level: choice('log-level', level || environment.UVXLAN_LOG_LEVEL || 'info', LOG_LEVELS),
    format: choice('log-format', format || environment.UVXLAN_LOG_FORMAT || 'human', LOG_FORMATS),
  };
  // Who runs for long outlives whoever read its log, and ends in order.
  process.stdout.removeAllListeners('error').on('error', () => {});
  const log = openLog(options, (text) => process.stdout.write(text));
  if (options.format === 'human') return { log, note: complain, run: (command) => command() };
  return {
    log,
    note: (message) => log(message, { level: 'warn' }),
    run: async (command) => {
      try {
        return await command();
      } catch (error) {
        log((error as Error).message, { level: 'error' });
        return 1;
      }
    },
  };
}

function choice<Word extends string>(name: string, word: string, known: readonly Word[]): Word {
  const found = known.find((each) => each === word);
  if (found) return found;
  const variable = `UVXLAN_${name.toUpperCase().replace('-', '_')}`;
  throw new UsageError(`--${name} (or ${variable}): "${word}" is unknown, known are ${known.join(', ')}`);
}
