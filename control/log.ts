/** The log of a command that runs for long: a line a message, for people or as JSON. Secrets do not belong into messages. */

/** The graver ones first: a level shows itself and those before it. */
export const LOG_LEVELS = ['error', 'warn', 'info', 'debug'] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];
export const LOG_FORMATS = ['human', 'json'] as const;
export type LogFormat = (typeof LOG_FORMATS)[number];

/** How grave a message is, `info` when not given, and what it is about, for who filters logs. */
export interface LogFields {
  readonly level?: LogLevel;
  readonly device?: string;
  /** Address of a VTEP. */
  readonly peer?: string;
  readonly nic?: string;
  readonly worker?: number;
}

export type Log = (message: string, fields?: LogFields) => void;

export interface LogOptions {
  readonly level: LogLevel;
  readonly format: LogFormat;
}

/** `write`: takes whole lines. */
export function openLog(
  { level, format }: LogOptions,
  write: (text: string) => void,
  now: () => Date = () => new Date(),
): Log {
  const most = LOG_LEVELS.indexOf(level);
  return (message, { level: own = 'info', ...fields } = {}) => {
    if (LOG_LEVELS.indexOf(own) > most) return;
    // A message of several lines is one line of JSON.
    if (format === 'json')
      write(`${JSON.stringify({ time: now().toISOString(), level: own, msg: message, ...fields })}\n`);
    else write(`uvxlan: ${message}\n`);
  };
}
