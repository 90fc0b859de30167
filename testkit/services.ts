import { execFileSync } from 'node:child_process';
import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { toHex } from '@asterism/bytes/encoding';
import { type ClusterKey, NO_STORE_URI, renderClusterKmsUri } from '@asterism/kms/cluster-uri';
import { KEY_CONFIGURATION, keySecretData } from '@asterism/kms/key-configuration';
import { AddressedTpm } from '@asterism/tpm/machine';
import { type Kube, startKube } from './kube.ts';
import {
  type ServiceName,
  type ServiceProcess,
  serveMetadata,
  startServiceProcess,
} from './service-process.ts';
import { type Swtpm, startSwtpm } from './swtpm.ts';
import { type TemporaryFolder, temporaryFolder } from './temporary-folder.ts';

const MANIFESTS = ['key-service', 'join-service', 'verification-service'];
export const SYSTEM_NAMESPACE = '/api/v1/namespaces/kube-system';

/** Services of a cluster as processes, with a TPM, a Kubernetes API, and the machine 127.0.0.1 as a worker. */
export interface ServicesOfCluster extends AsyncDisposable {
  readonly kube: Kube;
  readonly folder: TemporaryFolder;
  /** TPM of the node that the services run on. */
  readonly tpm: Swtpm;
  readonly processes: ReadonlyMap<ServiceName, ServiceProcess>;
}

/**
 * JoinService and VerificationService have a port in common, as in a cluster they have addresses of their own: only one
 * of them at a time.
 * @param bundles path of the bundle of each service to start, in this order
 */
export async function startServices(bundles: ReadonlyMap<ServiceName, string>): Promise<ServicesOfCluster> {
  const stack = new AsyncDisposableStack();
  try {
    const folder = stack.use(await temporaryFolder());
    const kube = stack.use(await startKube());
    const tpm = stack.use(await startSwtpm());
    for (const name of MANIFESTS)
      await kube.apply(await readFile(join(import.meta.dirname, '../deploy', name, `${name}.yaml`), 'utf8'));
    await describeVersion(kube);
    await describeKeys(kube, { key: bytes(1), salt: bytes(2) });
    const metadataSocket = folder.file('metadata.sock');
    stack.use(
      await serveMetadata(metadataSocket, [
        instance('10.77.1.2', 'ControlPlane'),
        instance('127.0.0.1', 'Worker'),
      ]),
    );
    const pcrs = await new AddressedTpm(tpm.address, 'ecc-p256').readPcrs();
    const measurements = Object.fromEntries(
      [4, 8, 9, 11, 12, 13, 15].map((pcr) => [pcr, { expected: toHex(pcrs.get(pcr)!), warnOnly: false }]),
    );
    const config = {
      'key-service': {},
      'join-service': { measurements: JSON.stringify(measurements), measurementSalt: bytes(3) },
      'verification-service': {},
    };
    const processes = new Map<ServiceName, ServiceProcess>();
    for (const [name, program] of bundles) {
      const own = folder.file(name);
      await mkdir(own);
      const service = await startServiceProcess({
        name,
        program,
        folder: own,
        kube,
        tpm: tpm.address,
        metadataSocket,
        config: config[name],
      });
      processes.set(name, service);
      stack.defer(async () => {
        await service.stop();
      });
    }
    return { kube, folder, tpm, processes, [Symbol.asyncDispose]: () => stack.disposeAsync() };
  } catch (error) {
    await stack.disposeAsync();
    throw error;
  }
}

const bytes = (value: number) => new Uint8Array(32).fill(value);

function instance(vpcIp: string, role: 'ControlPlane' | 'Worker') {
  const name = role === 'Worker' ? 'worker-0' : 'control-plane-0';
  return { name, providerId: `local://${name}`, role, vpcIp, secondaryIpRange: '', aliasIpRanges: [] };
}

/** Writes down the cluster's version as init does. */
export async function describeVersion(kube: Kube): Promise<void> {
  const name = `k8s-components-sha256-${'a'.repeat(64)}`;
  const component = {
    URL: 'http://10.77.1.1:8080/components/x',
    Hash: `sha256:${'b'.repeat(64)}`,
    InstallPath: '/run/state/bin/kubeadm',
    Extract: false,
  };
  const maps = {
    'asterism-version': { kubernetesComponentsReference: name },
    [name]: { 'cluster-version': 'v1.37.2', components: JSON.stringify(Array(13).fill(component)) },
  };
  for (const [map, data] of Object.entries(maps))
    await kube.admin.call('POST', `${SYSTEM_NAMESPACE}/configmaps`, { metadata: { name: map }, data });
}

/** Writes down where keys come from as init does. */
export async function describeKeys(kube: Kube, master: ClusterKey): Promise<void> {
  const home = { kmsUri: renderClusterKmsUri(master), storageUri: NO_STORE_URI };
  await kube.admin.call('POST', `${SYSTEM_NAMESPACE}/secrets`, {
    metadata: { name: KEY_CONFIGURATION.name },
    type: KEY_CONFIGURATION.type,
    data: keySecretData({ homes: [home] }),
  });
}

/** A kubelet's certificate request as openssl makes it. */
export function kubeletCsr(nodeName: string, address: string): Uint8Array {
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', '/dev/null'];
  const names = [
    '-subj',
    `/O=system:nodes/CN=system:node:${nodeName}`,
    '-addext',
    `subjectAltName=IP:${address}`,
  ];
  const args = ['req', '-new', '-outform', 'DER', ...key, ...names];
  return new Uint8Array(execFileSync('openssl', args, { stdio: ['ignore', 'pipe', 'ignore'] }));
}
