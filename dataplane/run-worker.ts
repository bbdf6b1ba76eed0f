import { threadId } from '../system/thread.ts';
import type { WorkerReport, WorkerTask } from './task.ts';
import { WarmUp } from './warm-up.ts';
import { Worker } from './worker.ts';

/** The pool's task: returns when the worker is told to stop; throws what went wrong in its loop. */
export default function runWorker(task: WorkerTask): void {
  task.messages.postMessage({ thread: threadId() } satisfies WorkerReport);
  const worker = new Worker(task.worker, task.shared);
  let warmUp: WarmUp | undefined;
  for (const uplink of task.uplinks) worker.addUplink(uplink);
  for (const device of task.devices) worker.addDevice(device);
  for (const tap of task.taps) worker.listen(tap);
  try {
    worker.run(task, () => {
      warmUp ??= new WarmUp(worker); // not before there is time for it: a worker that is started again has packets waiting
      if (warmUp.step()) return true;
      warmUp = undefined; // with its memory
      return false;
    });
  } catch (error) {
    worker.settle();
    throw error;
  } finally {
    warmUp?.close();
  }
}
