/** An operation that the kernel would refuse: its errno, and the line that iproute2 prints for it. */
export class FdbError extends Error {
  /** Name, 'EEXIST' say. */
  readonly errno: string;

  constructor(errno: string, message: string) {
    super(message);
    this.errno = errno;
  }
}

/** With the words of strerror(3), as iproute2 prints an answer of the kernel that has none of its own. */
export function answer(errno: keyof typeof WORDS): FdbError {
  return new FdbError(errno, `RTNETLINK answers: ${WORDS[errno]}`);
}

const WORDS = {
  EAFNOSUPPORT: 'Address family not supported by protocol',
  EEXIST: 'File exists',
  EINVAL: 'Invalid argument',
  ENOBUFS: 'No buffer space available',
  ENOENT: 'No such file or directory',
  ENOSPC: 'No space left on device',
  EOPNOTSUPP: 'Operation not supported',
};
