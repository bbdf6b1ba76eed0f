/** Pinning: what is named in a BPF file system stays when the last descriptor is closed, and goes when the name is removed. */
import { mkdirSync, statfsSync } from 'node:fs';
import { Attributes, BPF_OBJ_PIN } from './call.ts';

// Offsets in union bpf_attr, BPF_OBJ_PIN.
const PIN_PATH = 0;
const PIN_FD = 8;
/** BPF_FS_MAGIC, include/uapi/linux/magic.h. */
const BPF_FS = 0xcafe4a11;

/** Names a link, program or map. Throws a SystemError: EEXIST, ENOENT, EPERM where the directory is not in a BPF file system. */
export function pin(fd: number, path: string): void {
  new Attributes()
    .point(PIN_PATH, Buffer.from(`${path}\0`))
    .set(PIN_FD, fd)
    .call(BPF_OBJ_PIN, path);
}

/** Makes the directory when it is missing; throws unless it is in a BPF file system. */
export function checkPinDirectory(directory: string): void {
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  if (statfsSync(directory).type === BPF_FS) return;
  throw new Error(`${directory} is not in a BPF file system: mount -t bpf bpf ${directory}`);
}
