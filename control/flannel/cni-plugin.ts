/**
 * flannel's CNI plugin: makes of subnet.env and its own few keys the configuration of another plugin, `bridge` if nothing else is asked for,
 * and lets that one do the work. CNI specification 1.1; keys and files are those of flannel's cni-plugin, so that either can
 * remove what the other has made.
 */
import { spawn } from 'node:child_process';
import { accessSync, constants, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { FAMILIES } from './lease.ts';
import { firstAddress, readSubnetEnv, type SubnetEnv } from './subnet-env.ts';

const SUPPORTED = ['0.3.0', '0.3.1', '0.4.0', '1.0.0', '1.1.0'] as const;
const SUBNET_FILE = '/run/flannel/subnet.env';
const DATA_DIR = '/var/lib/cni/flannel';

/** Codes of the specification: reserved ones below 100. */
export const CNI_ERROR = {
  incompatibleVersion: 1,
  invalidEnvironment: 4,
  decodingFailed: 6,
  invalidConfig: 7,
  notAvailable: 50,
  failed: 100,
} as const;

/** A failure as a runtime reads it. */
export class CniError extends Error {
  readonly code: number;
  readonly details: string;

  constructor(code: number, message: string, details = '') {
    super(message);
    this.code = code;
    this.details = details;
  }
}

type Json = Record<string, unknown>;

interface FlannelConf extends Json {
  readonly cniVersion: string;
  readonly name: string;
  readonly subnetFile: string;
  readonly dataDir: string;
  readonly delegate: Json;
  readonly ipam: Json;
}

/** What a runtime asks for: CNI_* of the environment, and the configuration on standard input. */
export interface CniRequest {
  readonly environment: NodeJS.ProcessEnv;
  readonly input: string;
}

/** Returns what to print on standard output. Throws CniError. */
export async function runCni({ environment, input }: CniRequest): Promise<string> {
  const command = environment.CNI_COMMAND ?? '';
  if (command === 'VERSION') return versions(input);
  const conf = parseConf(input);
  switch (command) {
    case 'ADD':
      return add(conf, environment);
    case 'CHECK':
      return check(conf, environment);
    case 'DEL':
      return del(conf, environment);
    case 'STATUS':
      return status(conf, environment);
    default:
      throw new CniError(
        CNI_ERROR.invalidEnvironment,
        command === ''
          ? 'CNI_COMMAND is missing: this is a CNI plugin, which a container runtime runs'
          : `CNI_COMMAND=${command} is unknown: there are ADD, DEL, CHECK, STATUS, VERSION`,
      );
  }
}

function versions(input: string): string {
  const { cniVersion } = (input.trim() === '' ? {} : parseJson(input)) as { cniVersion?: string };
  return JSON.stringify({ cniVersion: cniVersion ?? SUPPORTED.at(-1), supportedVersions: SUPPORTED });
}

async function add(conf: FlannelConf, environment: NodeJS.ProcessEnv): Promise<string> {
  const file = scratchFile(conf, environment);
  const delegate = JSON.stringify(delegateConf(conf, subnetEnv(conf)));
  // DEL has to undo what was done, also when subnet.env has another subnet by then.
  mkdirSync(conf.dataDir, { recursive: true, mode: 0o700 });
  writeFileSync(file, delegate, { mode: 0o600 });
  return delegateTo(delegate, environment);
}

/** The specification wants DEL to succeed as long as nothing is left, whatever it was that was there. */
async function del(conf: FlannelConf, environment: NodeJS.ProcessEnv): Promise<string> {
  const file = scratchFile(conf, environment);
  const delegate = readScratch(file);
  if (delegate === undefined) return '';
  await delegateTo(delegate, environment);
  rmSync(file, { force: true });
  return '';
}

async function check(conf: FlannelConf, environment: NodeJS.ProcessEnv): Promise<string> {
  const delegate = readScratch(scratchFile(conf, environment));
  if (delegate === undefined) throw new CniError(CNI_ERROR.failed, `this node has made no network for the container`);
  const { prevResult } = conf;
  if (prevResult === undefined) throw new CniError(CNI_ERROR.invalidConfig, 'prevResult is missing: CHECK needs it');
  return delegateTo(JSON.stringify({ ...parseJson(delegate), prevResult }), environment);
}

/** Whether ADD could work now. */
function status(conf: FlannelConf, environment: NodeJS.ProcessEnv): string {
  subnetEnv(conf);
  findPlugin(String(conf.delegate.type ?? 'bridge'), environment);
  return '';
}

/** The configuration of the plugin that does the work, as flannel puts it together. */
export function delegateConf(conf: FlannelConf, env: SubnetEnv): Json {
  const delegate: Json = { type: 'bridge', ipMasq: !env.ipMasq, mtu: env.mtu, ...conf.delegate };
  if (delegate.type === 'bridge') delegate.isGateway ??= true;
  const routes = FAMILIES.flatMap((family) => {
    const [dst, subnet] = [env.network[family], env.subnet[family]];
    if (dst === null || subnet === null) return [];
    // The bridge's own address; named, since the plugin's CHECK does not find a route that it has put the gateway into itself.
    return [delegate.isGateway ? { dst, gw: firstAddress(subnet).split('/')[0] } : { dst }];
  });
  const ranges = FAMILIES.flatMap((family) => (env.subnet[family] === null ? [] : [[{ subnet: env.subnet[family] }]]));
  const given = conf.ipam.routes;
  return {
    ...delegate,
    name: conf.name,
    cniVersion: conf.cniVersion,
    ...(conf.runtimeConfig === undefined ? {} : { runtimeConfig: conf.runtimeConfig }),
    ipam: { type: 'host-local', ...conf.ipam, ranges, routes: [...(Array.isArray(given) ? given : []), ...routes] },
  };
}

/** Exported for tests. Throws CniError. */
export function parseConf(input: string): FlannelConf {
  const conf = parseJson(input);
  const { cniVersion = '0.3.1', name, subnetFile = SUBNET_FILE, dataDir = DATA_DIR, delegate = {}, ipam = {} } = conf;
  if (!SUPPORTED.some((version) => version === cniVersion)) {
    const message = `cniVersion ${cniVersion} is not one of ${SUPPORTED.join(', ')}`;
    throw new CniError(CNI_ERROR.incompatibleVersion, message);
  }
  const wrong = (key: string, what: string) => new CniError(CNI_ERROR.invalidConfig, `${key} ${what}`);
  if (typeof name !== 'string' || name === '') throw wrong('name', 'is missing');
  if (typeof subnetFile !== 'string') throw wrong('subnetFile', 'is not a path');
  if (typeof dataDir !== 'string') throw wrong('dataDir', 'is not a path');
  if (!isMap(delegate)) throw wrong('delegate', 'is not an object');
  if (!isMap(ipam)) throw wrong('ipam', 'is not an object');
  for (const key of ['name', 'ipam']) {
    if (key in delegate) throw wrong(`delegate.${key}`, 'is set by this plugin, and may not be given');
  }
  return { ...conf, cniVersion: String(cniVersion), name, subnetFile, dataDir, delegate, ipam };
}

function parseJson(text: string): Json {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new CniError(CNI_ERROR.decodingFailed, `the configuration is not JSON: ${(error as Error).message}`);
  }
  if (!isMap(value)) throw new CniError(CNI_ERROR.decodingFailed, 'the configuration is not an object');
  return value;
}

function isMap(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function subnetEnv({ subnetFile }: FlannelConf): SubnetEnv {
  try {
    return readSubnetEnv(subnetFile);
  } catch (error) {
    throw new CniError(CNI_ERROR.notAvailable, (error as Error).message);
  }
}

/** Its name is the container's id, which the specification keeps to letters, digits, `_`, `.` and `-`. */
function scratchFile({ dataDir }: FlannelConf, environment: NodeJS.ProcessEnv): string {
  const id = environment.CNI_CONTAINERID ?? '';
  if (/^[a-zA-Z0-9][a-zA-Z0-9_.-]*$/.test(id)) return join(dataDir, id);
  throw new CniError(CNI_ERROR.invalidEnvironment, `CNI_CONTAINERID="${id}" is not the id of a container`);
}

function readScratch(file: string): string | undefined {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw new CniError(CNI_ERROR.failed, `${file} cannot be read: ${(error as Error).message}`);
  }
}

/** Runs the plugin with the same environment; returns what it prints. Its own error is passed on. */
async function delegateTo(conf: string, environment: NodeJS.ProcessEnv): Promise<string> {
  const { type } = parseJson(conf);
  const plugin = findPlugin(String(type), environment);
  const child = spawn(plugin, [], { env: environment, stdio: ['pipe', 'pipe', 'inherit'] });
  let printed = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    printed += text;
  });
  child.stdin.on('error', () => {}); // it ended without reading all: its status says why
  child.stdin.end(conf);
  const status = await new Promise<number | null>((resolve, reject) => {
    child.on('error', (error) => reject(new CniError(CNI_ERROR.failed, `${plugin} cannot be run: ${error.message}`)));
    child.on('close', resolve);
  });
  if (status === 0) return printed;
  throw pluginError(plugin, status, printed);
}

function pluginError(plugin: string, status: number | null, printed: string): CniError {
  try {
    const { code, msg, details = '' } = JSON.parse(printed) as { code: number; msg: string; details?: string };
    return new CniError(code, msg, details);
  } catch {
    return new CniError(CNI_ERROR.failed, `${plugin} ended with status ${status}`, printed.trim());
  }
}

function findPlugin(type: string, { CNI_PATH = '' }: NodeJS.ProcessEnv): string {
  if (type.includes('/')) throw new CniError(CNI_ERROR.invalidConfig, `delegate.type "${type}" is not a plugin's name`);
  for (const directory of CNI_PATH.split(':').filter((each) => each !== '')) {
    const path = join(directory, type);
    try {
      accessSync(path, constants.X_OK);
      return path;
    } catch {
      // perhaps in the next
    }
  }
  throw new CniError(CNI_ERROR.failed, `there is no plugin ${type} in CNI_PATH=${CNI_PATH}`);
}
