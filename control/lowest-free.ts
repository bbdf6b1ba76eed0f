import { CommandError } from './protocol.ts';

/** The lowest number that is not taken. Throws CommandError ENOSPC when all are; `what` they number is for its message. */
export function lowestFree(limit: number, taken: (candidate: number) => boolean, what: string): number {
  for (let candidate = 0; candidate < limit; candidate++) if (!taken(candidate)) return candidate;
  throw new CommandError(`there are ${limit} ${what} already, and no more are possible`, 'ENOSPC');
}
