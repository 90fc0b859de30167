import { createHash } from 'node:crypto';
import { isIP } from 'node:net';
import { fromUtf8 } from '@asterism/bytes/encoding';
import { type HomeCredentials, parseHomeCredentials } from '@asterism/kms/key-configuration';
import { parseKmsUri, parseStoreUri, renderKmsUri, renderStoreUri } from '@asterism/kms/uri';
import { type Component, checkComponent } from '@asterism/kubernetes/install';
import type { InitRequest } from '@asterism/rpc/gen/init_pb';
import { StatusError } from '@asterism/rpc/status';

/** Minor versions that this software configures and was tried with. */
const SUPPORTED_MINORS = [35, 36, 37];
export const COMPONENT_ROOTS = ['/run/state/bin', '/run/state/images', '/opt/cni/bin'] as const;
const NEEDED_PROGRAMS = ['/run/state/bin/kubeadm', '/run/state/bin/kubelet', '/run/state/bin/kubectl'];
const HOST_NAME = /^(\*\.)?[a-zA-Z0-9]([-a-zA-Z0-9]{0,62})(\.[a-zA-Z0-9]([-a-zA-Z0-9]{0,62}))*$/;

/** What a caller wants initialised: an InitRequest whose every field was checked. The secret is not in it. */
export interface InitOrder {
  readonly kmsUri: string;
  readonly storageUri: string;
  readonly clusterName: string;
  /** With its "v". */
  readonly kubernetesVersion: string;
  readonly components: readonly Component[];
  /** 32 bytes; undefined where the caller leaves the choice to the node. */
  readonly measurementSalt: Uint8Array | undefined;
  /** JSON of the measurements that joining nodes must meet; undefined: this node's own. */
  readonly joinMeasurements: string | undefined;
  /** PCRs to enforce where there are no joinMeasurements. */
  readonly enforcedPcrs: readonly number[];
  readonly certSans: readonly string[];
  /** 32 bytes; undefined where they follow from the key of the cluster's own KMS. */
  readonly measurementSecret: Uint8Array | undefined;
  /** For an external KMS and its store; undefined: what the machine itself has. */
  readonly kmsCredentials: HomeCredentials | undefined;
  /** Hash of what the cluster is to be. Where components come from may change between two tries. */
  readonly fingerprint: string;
}

/** @throws StatusError INVALID_ARGUMENT, naming the field */
export function checkInitRequest(request: InitRequest): InitOrder {
  if (request.kmsUri === '' || request.kmsUri.length > 8192) refuse('kms_uri is empty or too long');
  if (!request.kmsUri.startsWith('kms://')) refuse('kms_uri is no kms:// URI');
  const storageUri = request.storageUri === '' ? 'storage://no-store' : request.storageUri;
  if (!storageUri.startsWith('storage://') || storageUri.length > 8192)
    refuse('storage_uri is no storage:// URI');

  const clusterName = request.clusterName === '' ? 'asterism' : request.clusterName;
  if (!/^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/.test(clusterName)) {
    refuse('cluster_name must be lower-case letters, digits and "-", at most 63');
  }
  const version = /^v1\.(\d{1,3})\.\d{1,3}$/.exec(request.kubernetesVersion);
  if (version === null || !SUPPORTED_MINORS.includes(Number(version[1]))) {
    refuse(
      `kubernetes_version "${request.kubernetesVersion.slice(0, 40)}" is not supported; ` +
        `one of v1.${SUPPORTED_MINORS.join('.x, v1.')}.x is`,
    );
  }
  const components = checkComponents(request);
  const salt = request.measurementSalt;
  if (salt.length !== 0 && salt.length !== 32) refuse(`measurement_salt has ${salt.length} bytes, not 32`);
  const enforcedPcrs = [...new Set(request.enforcedPcrs)].sort((a, b) => a - b);
  if (enforcedPcrs.some((index) => index > 23)) refuse('enforced_pcrs holds an index above 23');
  const certSans = [...new Set(request.apiserverCertSans)];
  if (certSans.length > 64) refuse('more than 64 apiserver_cert_sans');
  for (const san of certSans) {
    if (san.length > 253 || (isIP(san) === 0 && !HOST_NAME.test(san))) {
      refuse(`apiserver_cert_sans: "${san.slice(0, 60)}" is neither an IP address nor a host name`);
    }
  }
  const joinMeasurements = textOf(request.joinMeasurements, 'join_measurements');
  const { measurementSecret } = request;
  if (measurementSecret.length !== 0 && measurementSecret.length !== 32)
    refuse(`measurement_secret has ${measurementSecret.length} bytes, not 32`);
  const credentials = textOf(request.kmsCredentials, 'kms_credentials');
  const home = keyHomeOf(request.kmsUri, storageUri);
  const fingerprint = createHash('sha256')
    .update(
      JSON.stringify([
        clusterName,
        request.kubernetesVersion,
        components.map(({ hash, installPath, extract }) => [hash, installPath, extract]),
        joinMeasurements ?? enforcedPcrs,
        [...certSans].sort(),
        ...home,
      ]),
    )
    .digest('hex');
  return {
    kmsUri: request.kmsUri,
    storageUri,
    clusterName,
    kubernetesVersion: request.kubernetesVersion,
    components,
    measurementSalt: salt.length === 0 ? undefined : Uint8Array.from(salt),
    joinMeasurements,
    enforcedPcrs,
    certSans,
    measurementSecret: measurementSecret.length === 0 ? undefined : Uint8Array.from(measurementSecret),
    kmsCredentials: credentials === undefined ? undefined : readCredentials(credentials),
    fingerprint,
  };
}

/**
 * The external KMS and store of an order, without credentials, which may change between two tries. Of the cluster's own
 * KMS there is nothing to say: the cluster id follows from it.
 */
function keyHomeOf(kmsUri: string, storageUri: string): string[] {
  if (isClusterKms(kmsUri)) return [];
  try {
    return [renderKmsUri(parseKmsUri(kmsUri)), renderStoreUri(parseStoreUri(storageUri))];
  } catch (cause) {
    return refuse('kms_uri or storage_uri is malformed, or names what there is not', cause);
  }
}

function isClusterKms(kmsUri: string): boolean {
  return kmsUri.split('?')[0] === 'kms://cluster-kms';
}

function checkComponents(request: InitRequest): Component[] {
  const components = request.kubernetesComponents.map(({ url, hash, installPath, extract }) => ({
    url,
    hash,
    installPath,
    extract,
  }));
  if (components.length > 64) refuse('more than 64 kubernetes_components');
  for (const component of components) {
    try {
      checkComponent(component, COMPONENT_ROOTS);
    } catch (cause) {
      refuse(`kubernetes_components: ${cause instanceof Error ? cause.message : cause}`, cause);
    }
  }
  for (const path of NEEDED_PROGRAMS) {
    if (!components.some(({ installPath }) => installPath === path)) {
      refuse(`kubernetes_components bring no ${path}`);
    }
  }
  return components;
}

function readCredentials(text: string): HomeCredentials {
  try {
    return parseHomeCredentials(text);
  } catch (cause) {
    return refuse('kms_credentials are malformed', cause);
  }
}

function textOf(bytes: Uint8Array, field: string): string | undefined {
  if (bytes.length === 0) return undefined;
  if (bytes.length > 65_536) refuse(`${field} is larger than 64 KiB`);
  try {
    return fromUtf8(bytes);
  } catch (cause) {
    return refuse(`${field} is not UTF-8`, cause);
  }
}

function refuse(why: string, cause?: unknown): never {
  throw new StatusError('INVALID_ARGUMENT', 'ERR_INIT_REQUEST', `init request refused: ${why}`, { cause });
}
