import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { HttpError } from '../../../control/flannel/http.ts';
import { DocumentError } from '../../../control/flannel/keys.ts';
import { kubeconfigAccess, plainAccess, podAccess } from '../../../control/flannel/kube-access.ts';
import { KubeClient, KubeError } from '../../../control/flannel/kube-client.ts';
import { certificates } from './etcd-server.ts';
import { KubeApi } from './kube-api.ts';

const KUBECONFIG = `
apiVersion: v1
kind: Config
current-context: here
contexts:
  - { name: there, context: { cluster: none, user: none } }
  - { name: here, context: { cluster: test, user: agent } }
clusters:
  - name: test
    cluster: { server: "https://192.0.2.10:6443", certificate-authority: ca.pem }
users:
  - name: agent
    user: { token: the-token }
`;

function directory(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), 'uvxlan-kubeconfig-'));
  t.after(() => rmSync(path, { recursive: true }));
  return path;
}

test('a kubeconfig: files beside it, data in it, tokens in files', (t) => {
  const here = directory(t);
  const file = join(here, 'config');
  const read = (text: string, apiUrl?: string) => {
    writeFileSync(file, text);
    const { server, credentials } = kubeconfigAccess(file, apiUrl);
    return { server: server.href, ...credentials() };
  };
  writeFileSync(join(here, 'ca.pem'), 'an authority');
  const nothing = { cert: undefined, key: undefined, insecure: undefined, servername: undefined };
  const expected = { ...nothing, ca: 'an authority', headers: { authorization: 'Bearer the-token' } };
  assert.deepEqual(read(KUBECONFIG), { server: 'https://192.0.2.10:6443/', ...expected });
  assert.equal(read(KUBECONFIG, 'https://192.0.2.11').server, 'https://192.0.2.11/', '--kube-api-url goes before');

  const data = (text: string) => Buffer.from(text).toString('base64');
  const withData = KUBECONFIG.replace(
    'token: the-token',
    `client-certificate-data: ${data('CERT')}, client-key-data: ${data('KEY')}`,
  ).replace(
    'certificate-authority: ca.pem',
    `certificate-authority-data: ${data('CA')}, tls-server-name: api, insecure-skip-tls-verify: true`,
  );
  const { server: _, ...given } = read(withData);
  assert.deepEqual(given, { ca: 'CA', cert: 'CERT', key: 'KEY', insecure: true, servername: 'api', headers: {} });

  writeFileSync(join(here, 'token'), 'first\n');
  writeFileSync(file, KUBECONFIG.replace('token: the-token', 'tokenFile: token'));
  const { credentials } = kubeconfigAccess(file);
  assert.deepEqual(credentials().headers, { authorization: 'Bearer first' });
  writeFileSync(join(here, 'token'), 'second\n');
  assert.deepEqual(credentials().headers, { authorization: 'Bearer second' }, 'tokens are replaced while we run');
});

test('what is wrong in a kubeconfig is told with its key, and never with a secret', (t) => {
  const file = join(directory(t), 'config');
  const mistakes = (text: string) => {
    writeFileSync(file, text);
    try {
      kubeconfigAccess(file);
    } catch (error) {
      assert.ok(error instanceof DocumentError, String(error));
      assert.doesNotMatch(error.message, /the-token/);
      return error.message.replaceAll(file, 'config').split('\n');
    }
    assert.fail('it was accepted');
  };
  assert.deepEqual(mistakes(KUBECONFIG.replace('current-context: here', 'current-context: nowhere')), [
    'config: contexts: has none named "nowhere"',
  ]);
  assert.deepEqual(mistakes('kind: Config'), ['config: current-context: is missing']);
  assert.deepEqual(mistakes(KUBECONFIG.replace('"https://192.0.2.10:6443"', 'x')), [
    'config: clusters[0].cluster.server: is not a URL such as https://192.0.2.10:6443',
  ]);
  assert.deepEqual(
    mistakes(KUBECONFIG.replace('{ token: the-token }', '{ exec: { command: aws, args: [the-token] } }')),
    ['config: users[0].user.exec: is not supported: give a token, a tokenFile or a client certificate'],
  );
  assert.deepEqual(mistakes(KUBECONFIG.replace('token: the-token', 'token: [the-token]')), [
    'config: users[0].user.token: null is not a text',
  ]);
  assert.deepEqual(mistakes('token: "the-token\nother: ['), ['config: is not a YAML map']);
});

test('a pod: its service account over TLS, the token read anew, and the server checked', async (t) => {
  const files = certificates(t);
  const [cert, key] = [files.server, files.serverKey].map((file) => readFileSync(file, 'utf8'));
  const api = await KubeApi.start(t, { tls: { cert, key }, token: 'good' });
  const account = directory(t);
  writeFileSync(join(account, 'ca.crt'), readFileSync(files.ca));
  writeFileSync(join(account, 'token'), 'bad-secret');
  const environment = { KUBERNETES_SERVICE_HOST: '127.0.0.1', KUBERNETES_SERVICE_PORT: String(api.port) };
  const client = new KubeClient(podAccess(environment, account));
  t.after(() => client.close());
  const { signal } = new AbortController();
  const list = () => client.list('/api/v1/nodes', () => {}, signal);

  await assert.rejects(list(), new KubeError(`${client.origin} answered 401: Unauthorized`, 401));
  writeFileSync(join(account, 'token'), 'good\n');
  assert.match(await list(), /^\d+$/);
  writeFileSync(join(account, 'token'), 'a secret\nin two lines');
  await assert.rejects(list(), (error: Error) => error instanceof HttpError && !error.message.includes('secret\n'));

  writeFileSync(join(account, 'token'), 'good');
  writeFileSync(join(account, 'ca.crt'), readFileSync(files.client));
  const stranger = new KubeClient(podAccess(environment, account));
  await assert.rejects(
    stranger.list('/api/v1/nodes', () => {}, signal),
    (error: Error) => {
      assert.ok(error instanceof HttpError);
      assert.match(error.message, /unable to verify|self.signed/);
      return true;
    },
  );
  rmSync(join(account, 'token'));
  await assert.rejects(list(), new HttpError(`cannot read ${account}/token (ENOENT)`));

  assert.equal(
    podAccess({ KUBERNETES_SERVICE_HOST: 'fd00::1', KUBERNETES_SERVICE_PORT: '443' }).server.host,
    '[fd00::1]',
  );
  assert.throws(() => podAccess({}), DocumentError);
  assert.throws(() => plainAccess('localhost:8001'), DocumentError);
});
