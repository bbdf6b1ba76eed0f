/** The highest rate that gets through, by bisection (RFC 2544, 26.1) with loss verification (ETSI GS NFV-TST 009, 12.3.3). */

export interface Trial {
  /** What was offered; a sender may not reach what it was asked for. */
  readonly offered: number;
  /** What arrived, in the same unit. */
  readonly delivered: number;
  /** The lost share, 0 to 1. */
  readonly loss: number;
}

export interface Search {
  /** Highest offered rate of a trial that lost at most `limit`; undefined when every trial lost more. */
  readonly rate: number | undefined;
  /** Lowest rate that was tried, the flood's included. */
  readonly lowest: number;
  /** As fast as the sender can. */
  readonly flood: Trial;
  readonly trials: number;
}

/**
 * Runs `trial` with a rate, first with 0, which means as fast as the sender can. What that offers is above the result, or is the result. Rates
 * differ by orders of magnitude between peers, so the search halves their logarithm, from a hundredth of what arrived in the flood on.
 * A rate is too high when it loses too much twice: whatever else goes on in a machine, a short trial loses something now and then at any rate (17 of 60
 * trials of a second, at 50,000 and 70,000 datagrams a second in turn, lost more than 0.1 %), and one such would end the search far below.
 * It ends after `trials`, or when the bounds are within `resolution` of each other.
 */
export async function highestRate(
  trial: (rate: number) => Promise<Trial>,
  { trials, limit, resolution = 0.03 }: { trials: number; limit: number; resolution?: number },
): Promise<Search> {
  const flood = await trial(0);
  if (flood.loss <= limit) return { rate: flood.offered, lowest: flood.offered, flood, trials: 1 };
  let best: number | undefined;
  let lowest = flood.offered;
  let high = flood.offered;
  // What arrives of a flood is a good guess of what can, unless nearly nothing does.
  let rate = Math.min(Math.max(flood.delivered, high / 100), high / (1 + resolution));
  let low = rate / 100;
  let done = 1;
  let isDoubted = false;
  while (done < trials && high > low * (1 + resolution)) {
    const { offered, loss } = await trial(rate);
    done++;
    lowest = Math.min(lowest, offered);
    if (loss <= limit) {
      best = Math.max(best ?? 0, offered);
      // A sender that does not reach a rate will not reach a higher one.
      if (offered < rate * (1 - resolution)) break;
      low = rate;
    } else if (!isDoubted) {
      isDoubted = true;
      continue;
    } else {
      high = rate;
    }
    isDoubted = false;
    rate = Math.sqrt(low * high);
  }
  return { rate: best, lowest, flood, trials: done };
}
