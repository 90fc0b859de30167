// Whoever takes over a worker, root and all, has that worker's name and no other: with everything that lies on it he
// gets neither the certificate of a control plane nor the master secret.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { before, describe, test } from 'node:test';
import { asterism, type Cluster, eventually, must, type Result, SKIP, sharedCluster } from '../cluster.ts';

const KUBECTL = '/run/state/bin/kubectl';
/** The kubelet's own, and the one with which the node joined. */
const CREDENTIALS = ['/etc/kubernetes/kubelet.conf', '/etc/kubernetes/discovery.conf'];
const SIGNER = 'kubernetes.io/kube-apiserver-client-kubelet';

describe('a worker that is taken over', { skip: SKIP }, () => {
  let cluster: Cluster;
  let worker: string;
  let controlPlane: string;

  before(async () => {
    cluster = await sharedCluster();
    worker = cluster.workers[0]!.name;
    controlPlane = cluster.controlPlanes[0]!.name;
  });

  const onWorker = (...program: string[]): Promise<Result> =>
    asterism(['local', 'exec', worker, '--', ...program]);
  const kubectl = (kubeconfig: string, ...args: string[]): Promise<Result> =>
    onWorker(KUBECTL, '--kubeconfig', kubeconfig, '--request-timeout=10s', ...args);
  const forbidden = ({ status, stderr, stdout }: Result): void => {
    assert.notEqual(status, 0, stdout);
    assert.match(stderr, /Forbidden/);
  };

  /** Asks for the client certificate of a node, with the credentials in `kubeconfig`. */
  function askFor(kubeconfig: string, node: string, name: string): Promise<Result> {
    const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', '/dev/null'];
    const subject = ['-subj', `/O=system:nodes/CN=system:node:${node}`];
    const request = execFileSync('openssl', ['req', '-new', ...subject, ...key], {
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    const object = JSON.stringify({
      apiVersion: 'certificates.k8s.io/v1',
      kind: 'CertificateSigningRequest',
      metadata: { name },
      spec: {
        request: request.toString('base64'),
        signerName: SIGNER,
        usages: ['digital signature', 'client auth'],
      },
    });
    const create = `echo '${object}' | ${KUBECTL} --kubeconfig ${kubeconfig} create -f -`;
    return onWorker('sh', '-c', create);
  }
  const certificateOf = (name: string): Promise<string> =>
    must(cluster.kubectl(['get', 'csr', name, '-o', 'jsonpath={.status.certificate}']));

  for (const kubeconfig of CREDENTIALS) {
    test(`gets no certificate of another node by ${kubeconfig}, its own it does`, async () => {
      const run = crypto.randomUUID();
      for (const node of [controlPlane, 'worker-9'])
        forbidden(await askFor(kubeconfig, node, `other-${run}`));
      await must(askFor(kubeconfig, worker, `own-${run}`));
      const certificate = await eventually('its certificate', 30_000, async () => {
        const text = await certificateOf(`own-${run}`);
        assert.notEqual(text, '');
        return text;
      });
      assert.match(Buffer.from(certificate, 'base64').toString(), /BEGIN CERTIFICATE/);
    });

    test(`reads no Secret of the control plane by ${kubeconfig}`, async () => {
      for (const which of [['secret', 'asterism-kms'], ['secrets']])
        forbidden(await kubectl(kubeconfig, '-n', 'kube-system', 'get', ...which));
    });
  }

  test('finds no token and no further key: there are none in the cluster', async () => {
    const secrets = await must(cluster.kubectl(['-n', 'kube-system', 'get', 'secrets', '-o', 'name']));
    assert.doesNotMatch(secrets, /bootstrap-token/);
    const bindings = await must(cluster.kubectl(['get', 'clusterrolebindings', '-o', 'json']));
    assert.doesNotMatch(bindings, /system:bootstrappers|certificatesigningrequests:nodeclient/);
    const search = 'grep -rlE "PRIVATE KEY|client-key-data|[^a-z0-9][a-z0-9]{6}[.][a-z0-9]{16}([^a-z0-9]|$)"';
    const folders = '/etc/kubernetes /run/state/asterism /run/state/kubelet /var/lib/kubelet/pki';
    const { stdout } = await onWorker('sh', '-c', `${search} ${folders}`);
    const found = stdout.trim().split('\n').sort();
    assert.deepEqual(
      found.map((path) => path.replace(/client-.*/, 'client-*.pem')),
      ['/run/state/kubelet/pki/kubelet.key', '/var/lib/kubelet/pki/kubelet-client-*.pem'],
    );
  });
});
