#!/usr/bin/env node
/** The CNI plugin `flannel`, by itself: a container runtime finds it by its file name and starts it for each container. */
import { readFileSync } from 'node:fs';
import { CNI_ERROR, CniError, runCni } from '../control/flannel/cni-plugin.ts';

try {
  const result = await runCni({ environment: process.env, input: process.stdin.isTTY ? '' : readFileSync(0, 'utf8') });
  process.stdout.write(result);
} catch (error) {
  const { code, message, details } =
    error instanceof CniError ? error : new CniError(CNI_ERROR.failed, (error as Error).message);
  const reply = { cniVersion: '1.0.0', code, msg: `flannel: ${message}`, ...(details === '' ? {} : { details }) };
  process.stdout.write(`${JSON.stringify(reply)}\n`);
  process.exitCode = 1;
}
