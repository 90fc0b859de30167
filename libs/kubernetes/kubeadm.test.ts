import assert from 'node:assert/strict';
import { it } from 'node:test';
import { parseAllDocuments } from 'yaml';
import { discoveryKubeconfig, initConfiguration, joinConfiguration, nodeNameOf } from './kubeadm.ts';

it('normalises node names and refuses what cannot be one', () => {
  assert.equal(nodeNameOf('test'), 'test');
  assert.equal(nodeNameOf('TEST'), 'test');
  assert.equal(nodeNameOf('test_node'), 'test-node');
  assert.equal(nodeNameOf('a.b'), 'a.b');
  for (const bad of ['', 'test_node_', '-a', 'a..b', 'a/b', 'a b', 'x'.repeat(254)]) {
    assert.throws(() => nodeNameOf(bad), RangeError, bad);
  }
});

it('keeps hostile values inside their YAML field', () => {
  const hostile = 'x"\n---\nkind: Evil';
  const [init, cluster] = parseAllDocuments(
    initConfiguration({
      nodeName: 'cp-0',
      nodeIp: '10.77.1.2',
      providerId: 'local:///cp-0',
      clusterName: hostile,
      kubernetesVersion: 'v1.37.2',
      controlPlaneEndpoint: '10.77.1.1:6443',
      certSans: ['127.0.0.1', hostile],
    }),
  ).map((document) => document.toJS());
  assert.equal(init.kind, 'InitConfiguration');
  assert.equal(cluster.clusterName, hostile);
  assert.deepEqual(cluster.apiServer.certSANs, ['127.0.0.1', '10.77.1.2', hostile]);
});

it('does not judge a node by the share of its disk that is free, and keeps its images', () => {
  const kubelet = parseAllDocuments(
    initConfiguration({
      nodeName: 'cp-0',
      nodeIp: '10.77.1.2',
      providerId: '',
      clusterName: 'test',
      kubernetesVersion: 'v1.37.2',
      controlPlaneEndpoint: '10.77.1.1:6443',
      certSans: [],
    }),
  )
    .map((document) => document.toJS())
    .find(({ kind }) => kind === 'KubeletConfiguration');
  assert.equal(kubelet.imageGCHighThresholdPercent, 100);
  for (const name of ['nodefs.available', 'imagefs.available'])
    assert.match(kubelet.evictionHard[name], /^\d+Gi$/);
});

it('gives a control plane, and only it, an API endpoint of its own', () => {
  const join = {
    nodeName: 'w-0',
    nodeIp: '10.77.1.3',
    providerId: '',
  };
  const parse = (text: string) => parseAllDocuments(text)[0]!.toJS();
  assert.equal(parse(joinConfiguration({ ...join, controlPlane: false })).controlPlane, undefined);
  assert.deepEqual(parse(joinConfiguration({ ...join, controlPlane: true })).controlPlane, {
    localAPIEndpoint: { advertiseAddress: '10.77.1.3', bindPort: 6443 },
  });
});

it('has no tokens: none is made at init, the API server takes none, and a node joins by its certificate', () => {
  const init = initConfiguration({
    nodeName: 'cp-0',
    nodeIp: '10.77.1.2',
    providerId: '',
    clusterName: 'test',
    kubernetesVersion: 'v1.37.2',
    controlPlaneEndpoint: '10.77.1.1:6443',
    certSans: [],
  });
  assert.doesNotMatch(init, /bootstrapTokens/);
  const cluster = parseAllDocuments(init)[1]!.toJS();
  assert.deepEqual(
    cluster.apiServer.extraArgs.find(({ name }: { name: string }) => name === 'enable-bootstrap-token-auth'),
    { name: 'enable-bootstrap-token-auth', value: 'false' },
  );
  const join = joinConfiguration({
    nodeName: 'w-0',
    nodeIp: '10.77.1.3',
    providerId: '',
    controlPlane: false,
  });
  assert.deepEqual(parseAllDocuments(join)[0]!.toJS().discovery, {
    file: { kubeConfigPath: '/etc/kubernetes/discovery.conf' },
  });
  const discovery = discoveryKubeconfig('10.77.1.1:6443', 'PEM');
  assert.doesNotMatch(discovery, /token|-key-data/i);
  assert.deepEqual(parseAllDocuments(discovery)[0]!.toJS().users, [
    {
      name: 'node',
      user: {
        'client-certificate': '/run/state/kubelet/pki/kubelet.crt',
        'client-key': '/run/state/kubelet/pki/kubelet.key',
      },
    },
  ]);
});
