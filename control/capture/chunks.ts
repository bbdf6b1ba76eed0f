/** A capture for a reader in the daemon's own process, as the bytes that a client of the control socket would get. */
import { PassThrough } from 'node:stream';
import { FilterError } from '../../packets/filter/expression.ts';
import { compileFilter } from '../../packets/filter/filter.ts';
import { CommandError, type DaemonHandlers } from '../protocol.ts';
import type { CaptureRequest } from './capture.ts';

/** Bytes that may wait for the reader; further packets are lost and counted. */
const BACKLOG = 1 << 20;

/** Throws CommandError, of a wrong filter too. */
export async function captureStream(
  handlers: Pick<DaemonHandlers, 'capture'>,
  request: CaptureRequest,
): Promise<{ chunks: AsyncIterable<Uint8Array>; finish(): void }> {
  try {
    compileFilter(request.filter);
  } catch (error) {
    throw error instanceof FilterError ? new CommandError(error.message, 'EINVAL') : error;
  }
  const capture = await handlers.capture(request);
  const chunks = new PassThrough();
  capture.start({
    hasRoom: () => chunks.writableLength < BACKLOG,
    write: (bytes, done) => {
      chunks.write(Uint8Array.from(bytes));
      done();
    },
  });
  let finished = false;
  return {
    chunks,
    finish: () => {
      if (finished) return;
      finished = true;
      capture.finish().then(
        () => chunks.end(),
        (error: Error) => chunks.destroy(error),
      );
    },
  };
}
