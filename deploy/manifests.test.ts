import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { FLANNEL_VERSION } from '@asterism/kubernetes/components/catalogue';
import { POD_SUBNET } from '@asterism/kubernetes/kubeadm';
import { parseAllDocuments } from 'yaml';

interface Container {
  name: string;
  image: string;
  imagePullPolicy: string;
  command: string[];
  ports?: { name: string; containerPort: number }[];
  readinessProbe?: { httpGet: { path: string; port: number } };
  livenessProbe?: { httpGet: { path: string; port: number } };
  resources?: { requests?: { memory: string }; limits?: { memory: string } };
  securityContext?: Record<string, unknown>;
  volumeMounts?: { name: string; mountPath: string; readOnly?: boolean }[];
}
interface Volume {
  name: string;
  hostPath?: { path: string };
}
interface Manifest {
  kind: string;
  metadata: { name: string; namespace?: string };
  rules?: { resources: string[]; resourceNames?: string[]; verbs: string[] }[];
  spec: Record<string, unknown> & {
    template: { spec: Record<string, unknown> & { containers: Container[]; volumes: Volume[] } };
  };
  data?: Record<string, string>;
}

const folder = (name: string): Manifest[] =>
  readdirSync(join(import.meta.dirname, name)).flatMap((file) =>
    parseAllDocuments(readFileSync(join(import.meta.dirname, name, file), 'utf8')).map(
      (document) => document.toJS() as Manifest,
    ),
  );
const only = (manifests: Manifest[], kind: string): Manifest => {
  const found = manifests.filter((manifest) => manifest.kind === kind);
  assert.equal(found.length, 1, kind);
  return found[0]!;
};

/** Every path of the node that a service may see, and whether it may write there. */
const HOST_PATHS: Record<string, Record<string, 'read' | 'write'>> = {
  'join-service': {
    '/etc/kubernetes/pki': 'read',
    '/run/asterism/tpm.sock': 'read',
    '/run/asterism/event-log.bin': 'read',
    '/run/asterism/metadata': 'read',
    '/run/state/asterism/audit': 'write',
  },
  'key-service': {
    '/etc/kubernetes/pki/ca.crt': 'read',
    '/etc/kubernetes/pki/ca.key': 'read',
    '/run/state/asterism/audit': 'write',
  },
  'verification-service': { '/run/asterism/tpm.sock': 'read', '/run/asterism/event-log.bin': 'read' },
};
const HEALTH_PORTS: Record<string, number> = {
  'join-service': 9100,
  'key-service': 9101,
  'verification-service': 9102,
};
/** NodePort of each port; a ClusterIP Service has none. */
const PORTS: Record<string, Record<number, number | undefined>> = {
  'join-service': { 9090: 30090 },
  'key-service': { 9000: undefined },
  'verification-service': { 8080: 30080, 9090: 30081 },
};

for (const name of Object.keys(HOST_PATHS)) {
  test(`${name}: no capability, no pull, no more of the node than it needs`, () => {
    const manifests = folder(name);
    const { spec } = only(manifests, 'DaemonSet').spec.template;
    for (const forbidden of ['hostNetwork', 'hostPID', 'hostIPC'])
      assert.equal(spec[forbidden], undefined, forbidden);
    assert.deepEqual(spec.securityContext, { seccompProfile: { type: 'RuntimeDefault' } });
    const [container, ...others] = spec.containers;
    assert.equal(others.length, 0);
    assert.equal(container!.image, 'asterism.local/services:0.1.0');
    assert.equal(container!.imagePullPolicy, 'Never');
    assert.deepEqual(container!.command, ['/app/node', '--max-semi-space-size=2', `/app/${name}.mjs`]);
    assert.deepEqual(container!.securityContext, {
      allowPrivilegeEscalation: false,
      readOnlyRootFilesystem: true,
      capabilities: { drop: ['ALL'] },
    });
    assert.ok(container!.resources?.requests?.memory && container!.resources.limits?.memory);
    const health = HEALTH_PORTS[name]!;
    assert.deepEqual(container!.readinessProbe?.httpGet, { path: '/readyz', port: health });
    assert.deepEqual(container!.livenessProbe?.httpGet, { path: '/healthz', port: health });

    const seen: Record<string, string> = {};
    for (const { name: volume, hostPath } of spec.volumes) {
      const mounts = (container!.volumeMounts ?? []).filter((mount) => mount.name === volume);
      assert.equal(mounts.length, 1, volume);
      if (hostPath?.path.startsWith('/run/asterism')) assert.equal(mounts[0]!.mountPath, hostPath.path);
      if (hostPath === undefined) assert.equal(mounts[0]!.readOnly, true, volume);
      else seen[hostPath.path] = mounts[0]!.readOnly === true ? 'read' : 'write';
    }
    assert.deepEqual(seen, HOST_PATHS[name]);

    const service = only(manifests, 'Service').spec as unknown as {
      type?: string;
      externalTrafficPolicy?: string;
      ports: { port: number; nodePort?: number }[];
    };
    assert.deepEqual(
      Object.fromEntries(service.ports.map(({ port, nodePort }) => [port, nodePort])),
      PORTS[name],
    );
    // Otherwise the source address of a caller is lost, and with it who it is.
    if (service.type === 'NodePort') assert.equal(service.externalTrafficPolicy, 'Local');
  });
}

test('nothing is granted by wildcard, and Secrets to the KeyService alone: one by its name, and wrapped keys', () => {
  const secrets: unknown[] = [];
  for (const name of [...Object.keys(HOST_PATHS), 'flannel']) {
    for (const { rules = [], metadata } of folder(name).filter(({ kind }) => kind.endsWith('Role'))) {
      for (const { resources, resourceNames, verbs } of rules) {
        assert.equal([...resources, ...verbs].includes('*'), false);
        if (resources.includes('secrets')) secrets.push([name, metadata.namespace, resourceNames, verbs]);
      }
    }
  }
  assert.deepEqual(secrets, [
    ['key-service', 'asterism-keys', undefined, ['create', 'delete', 'get', 'list', 'update']],
    ['key-service', 'kube-system', ['asterism-kms'], ['get']],
  ]);
  assert.equal(
    only(folder('verification-service'), 'DaemonSet').spec.template.spec.automountServiceAccountToken,
    false,
  );
});

test('services with keys run on control planes only', () => {
  for (const name of ['join-service', 'key-service'])
    assert.deepEqual(only(folder(name), 'DaemonSet').spec.template.spec.nodeSelector, {
      'node-role.kubernetes.io/control-plane': '',
    });
});

test('flannel has the rights to make routes and rules, and no others', () => {
  const { spec } = only(folder('flannel'), 'DaemonSet').spec.template;
  assert.deepEqual(spec.securityContext, { seccompProfile: { type: 'RuntimeDefault' } });
  assert.deepEqual(spec.containers[0]!.securityContext, {
    allowPrivilegeEscalation: false,
    readOnlyRootFilesystem: true,
    capabilities: { drop: ['ALL'], add: ['NET_ADMIN', 'NET_RAW'] },
  });
  const paths = spec.volumes.flatMap(({ hostPath }) => hostPath?.path ?? []);
  assert.deepEqual(paths, ['/run/flannel', '/run/xtables.lock']);
});

test('flannel is the version of the catalogue and routes the pod subnet', () => {
  const manifests = folder('flannel');
  const [container] = only(manifests, 'DaemonSet').spec.template.spec.containers;
  assert.equal(container!.image, `ghcr.io/flannel-io/flannel:${FLANNEL_VERSION}`);
  assert.equal(container!.imagePullPolicy, 'Never');
  assert.equal(JSON.parse(only(manifests, 'ConfigMap').data!['net-conf.json']!).Network, POD_SUBNET);
});
