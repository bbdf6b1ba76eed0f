/** Words of the shared control array, through which the main thread tells workers what to do. */

/** Control word: not 0 when workers are to end. */
export const CONTROL_STOP = 0;
/** Control words from here on, one a worker: not 0 makes it fail once, so that recovery can be tested under load. */
export const CONTROL_FAIL = 1;
