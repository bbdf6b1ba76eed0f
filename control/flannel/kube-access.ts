import { readFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { isMap as isYamlMap, parseDocument } from 'yaml';
import { type Credentials, HttpError, parseHttpUrl, readCredential } from './http.ts';
import { boolean, DocumentError, formatPath, Keys, type Problem, string } from './keys.ts';

/** How to reach a Kubernetes API server. Credentials are read anew for every request: tokens and certificates are replaced while we run. */
export interface KubeAccess {
  readonly server: URL;
  readonly credentials: () => Credentials;
}

export const SERVICE_ACCOUNT = '/var/run/secrets/kubernetes.io/serviceaccount';

/** Of a pod: its service account, and the address of the API server in its environment. Throws DocumentError. */
export function podAccess(environment: NodeJS.ProcessEnv, directory: string = SERVICE_ACCOUNT): KubeAccess {
  const { KUBERNETES_SERVICE_HOST: host, KUBERNETES_SERVICE_PORT: port } = environment;
  if (!host || !port) {
    throw new DocumentError([
      'this is no pod (KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set): give --kubeconfig-file',
    ]);
  }
  const credentials = () => ({
    ca: readCredential(`${directory}/ca.crt`),
    headers: bearer(readCredential(`${directory}/token`)),
  });
  return { server: new URL(`https://${host.includes(':') ? `[${host}]` : host}:${port}`), credentials };
}

/**
 * Of the current context of a kubeconfig file: client certificates and tokens, in the file or in files of their own. `apiUrl` goes before
 * the server of the file. Throws DocumentError with all mistakes at once.
 */
export function kubeconfigAccess(file: string, apiUrl?: string): KubeAccess {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (error) {
    throw new DocumentError([`cannot read ${file} (${(error as NodeJS.ErrnoException).code})`]);
  }
  const document = parseDocument(text, { prettyErrors: false });
  // The parser's own messages quote the text, which has secrets.
  if (document.errors.length > 0 || !isYamlMap(document.contents))
    throw new DocumentError([`${file}: is not a YAML map`]);
  const problems: Problem[] = [];
  const access = new Kubeconfig(new Keys(document.toJS(), [], problems), resolve(dirname(file)), apiUrl).read();
  if (problems.length > 0) {
    throw new DocumentError(problems.map(({ path, message }) => `${file}: ${formatPath(path)}: ${message}`));
  }
  return access;
}

/** Without credentials: `kubectl proxy`, say. */
export function plainAccess(apiUrl: string): KubeAccess {
  const server = parseHttpUrl(apiUrl);
  if (server === undefined) throw new DocumentError(['--kube-api-url is not a URL such as https://192.0.2.10:6443']);
  return { server, credentials: () => ({}) };
}

class Kubeconfig {
  readonly #keys: Keys;
  readonly #directory: string;
  readonly #apiUrl: string | undefined;

  constructor(keys: Keys, directory: string, apiUrl: string | undefined) {
    this.#keys = keys;
    this.#directory = directory;
    this.#apiUrl = apiUrl;
  }

  read(): KubeAccess {
    if (!this.#keys.has('current-context')) this.#keys.problem('current-context', 'is missing');
    const name = this.#keys.take('current-context', string);
    const context = this.#named('contexts', 'context', name);
    const cluster = this.#named('clusters', 'cluster', context?.take('cluster', string));
    const user = context?.has('user') ? this.#named('users', 'user', context.take('user', string)) : undefined;
    const server = parseHttpUrl(this.#apiUrl ?? cluster?.take('server', string));
    if (cluster && server === undefined) cluster.problem('server', 'is not a URL such as https://192.0.2.10:6443');
    const ca = cluster && this.#pem(cluster, 'certificate-authority');
    const cert = user && this.#pem(user, 'client-certificate');
    const key = user && this.#pem(user, 'client-key');
    const token = user && this.#token(user);
    const insecure = cluster?.take('insecure-skip-tls-verify', boolean);
    const servername = cluster?.take('tls-server-name', string);
    const credentials = () => {
      const given = token?.();
      return { ca: ca?.(), cert: cert?.(), key: key?.(), insecure, servername, headers: given ? bearer(given) : {} };
    };
    // Without one there is a problem, and nobody takes this.
    return { server: server ?? new URL('https://invalid'), credentials };
  }

  /** The entry of that name in one of the lists, and in it the map that has what counts. */
  #named(list: string, key: string, name: string | undefined): Keys | undefined {
    if (name === undefined) return undefined;
    for (const [, entry] of this.#keys.list(list)) if (entry.take('name', string) === name) return entry.map(key);
    this.#keys.problem(list, `has none named ${JSON.stringify(name)}`);
    return undefined;
  }

  /** `KEY-data`, in base64, goes before a file. */
  #pem(keys: Keys, key: string): (() => string) | undefined {
    const data = keys.take(`${key}-data`, secret);
    if (data !== undefined) return () => Buffer.from(data, 'base64').toString('utf8');
    const file = keys.take(key, string);
    return file === undefined ? undefined : () => readCredential(resolve(this.#directory, file));
  }

  #token(user: Keys): (() => string) | undefined {
    for (const key of ['exec', 'auth-provider', 'username']) {
      if (user.has(key)) user.problem(key, 'is not supported: give a token, a tokenFile or a client certificate');
    }
    const file = user.take('tokenFile', string);
    if (file !== undefined) return () => readCredential(resolve(this.#directory, file));
    const token = user.take('token', secret);
    return token === undefined ? undefined : () => token;
  }
}

/** A text that no message may quote. */
function secret(value: unknown): string {
  return string(typeof value === 'string' && value !== '' ? value : null);
}

function bearer(token: string): Record<string, string> {
  const trimmed = token.trim();
  // Node's own message would quote it.
  if (/[^\x21-\x7e]/.test(trimmed) || trimmed === '')
    throw new HttpError('the bearer token is empty or has characters that no header can have');
  return { authorization: `Bearer ${trimmed}` };
}
