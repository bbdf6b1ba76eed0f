import { Batch } from '../batch.ts';

/** Every packet of a batch as a batch of one, over the same memory: what is changed there is changed in the batch. */
export class Windows {
  #batch: Batch | undefined;
  #windows: readonly Batch[] = [];

  /** Made once for a batch that is used again and again. */
  of(batch: Batch): readonly Batch[] {
    if (batch !== this.#batch) {
      this.#batch = batch;
      this.#windows = Array.from({ length: batch.capacity }, (_, i) => windowAt(batch, i));
    }
    return this.#windows;
  }
}

/** Whatever columns the batch has. */
function windowAt(batch: Batch, index: number): Batch {
  const window = new Batch(1);
  for (const [name, column] of Object.entries(batch)) {
    if (!(column instanceof Int32Array)) continue;
    const width = column.length / batch.capacity;
    Object.assign(window, { [name]: column.subarray(index * width, (index + 1) * width) });
  }
  window.count = 1;
  return window;
}
