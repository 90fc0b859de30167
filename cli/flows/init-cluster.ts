import { randomBytes } from 'node:crypto';
import { CLUSTER_ID_PCR } from '@asterism/attestation/cluster-id';
import type { Verifier } from '@asterism/attestation/types';
import { equal } from '@asterism/bytes/bytes';
import { fromBase64, fromHex, fromUtf8, toBase64, toHex } from '@asterism/bytes/encoding';
import type { ClusterConfig } from '@asterism/config/cluster-config';
import type { ExternalKmsConfig } from '@asterism/config/kms-config';
import type { KmsCredentials } from '@asterism/config/kms-credentials';
import { generateMasterSecret, MASTER_SECRET_FILE, type MasterSecret } from '@asterism/config/master-secret';
import type { ClusterState } from '@asterism/config/state';
import { KUBECONFIG_FILE, type Workspace, WorkspaceError } from '@asterism/config/workspace';
import { AsterismError, VerificationError } from '@asterism/errors/errors';
import type { InitRequestSchema } from '@asterism/rpc/gen/init_pb';
import type { MessageInitShape } from '@bufbuild/protobuf';
import { unmarkedOrMember } from './cluster-identity.ts';
import { confirmInit } from './confirm-init.ts';
import { type InitPlan, initialize } from './initialize.ts';
import { credentialBytes, externalKeyHome } from './key-home.ts';

export const BOOTSTRAPPER_PORT = 9000;

/** What init needs from elsewhere. */
export interface InitParts {
  /** Cluster id (32 bytes) of a master secret and a measurement salt. */
  clusterIdOf(secret: MasterSecret, measurementSalt: Uint8Array): Promise<Uint8Array>;
  kmsUri(secret: MasterSecret): string;
  storageUri(): string;
  /** The cluster id of a measurement secret that this side chose. */
  clusterIdOfMeasurementSecret(measurementSecret: Uint8Array, measurementSalt: Uint8Array): Uint8Array;
  /** Credentials for the KMS of the configuration and its store. */
  credentials(kms: ExternalKmsConfig): Promise<KmsCredentials>;
  /** Judges a node by the configuration, PCR 15 left out. */
  verifier(config: ClusterConfig): Verifier;
  /** Judges a node by the configuration, and accepts members of this cluster only. */
  memberVerifier(config: ClusterConfig, clusterId: Uint8Array): Promise<Verifier>;
  /** The components that nodes install, with the addresses where nodes find them. */
  components(
    state: ClusterState,
  ): Promise<MessageInitShape<typeof InitRequestSchema>['kubernetesComponents']>;
}

export interface InitInput extends Pick<InitPlan, 'signal' | 'onPeer' | 'onProgress' | 'onLog' | 'onRetry'> {
  readonly workspace: Workspace;
  readonly config: ClusterConfig;
  /** File given by the user; undefined: the workspace's own, generated where there is none. */
  readonly masterSecretFile: string | undefined;
  readonly patienceMs: number;
  /** Milliseconds for telling the node that the kubeconfig is here. */
  readonly confirmPatienceMs?: number;
  readonly pauseMs?: number;
  /** The cluster is there, but the node could not be told that its kubeconfig is here. */
  onUnconfirmed(why: string): void;
}

/**
 * Initialises the cluster of a workspace, or goes on with an init that was stopped or failed.
 *
 * Everything that the identity of the cluster hangs on is chosen and saved before the first call. So the id is known
 * beforehand, a node that was marked by an earlier attempt can be told from a foreign one, and a crash of this
 * command at any point loses nothing: the node offers the kubeconfig until this side says that it has it on disk.
 */
export async function initCluster(input: InitInput, parts: InitParts): Promise<ClusterState> {
  const { workspace } = input;
  const state = await workspace.requireState();
  refuseUnready(workspace, state);
  const received = await workspace.read(KUBECONFIG_FILE);
  if (state.phase === 'initialized') {
    if (state.initUnconfirmed !== true) return state;
    if (received !== undefined) {
      // A node that does not answer has heard an earlier confirmation, or stops offering by itself.
      await confirm(input, parts, state);
      return writeConfirmed(workspace, state);
    }
  }
  if (state.phase === 'created' && received !== undefined) {
    throw new WorkspaceError(
      'ERR_EXISTS',
      `${workspace.path(KUBECONFIG_FILE)} is there, but this cluster has made none yet; move it away`,
    );
  }

  const { kms } = input.config;
  const { prepared, keys } =
    kms.type === 'cluster'
      ? await prepare(input, state, parts)
      : await prepareExternal(input, state, parts, kms);
  // Only an earlier attempt of this very init can have written one: see above.
  if (received === undefined) {
    await workspace.create(KUBECONFIG_FILE, await kubeconfigOf(input, parts, keys, prepared));
  }
  const done: ClusterState = { ...prepared, phase: 'initialized', initUnconfirmed: true };
  await workspace.writeState(done);
  const why = await confirm(input, parts, done);
  if (why === undefined) return writeConfirmed(workspace, done);
  input.onUnconfirmed(why);
  return done;
}

/** Has the first node make the cluster. */
async function kubeconfigOf(
  input: InitInput,
  parts: InitParts,
  keys: RequestedKeys,
  prepared: Prepared,
): Promise<string> {
  const { config } = input;
  const clusterId = fromHex(prepared.clusterId);
  const answer = await initialize({
    ...input,
    host: prepared.endpoint,
    port: BOOTSTRAPPER_PORT,
    node: prepared.nodes.find(({ role }) => role === 'ControlPlane')?.name ?? 'NODE',
    verifier: await unmarkedOrMember(parts.verifier(config), clusterId),
    request: {
      ...keys,
      kubernetesVersion: prepared.kubernetesVersion,
      kubernetesComponents: (await parts.components(prepared)) ?? [],
      initSecret: fromBase64(prepared.initSecret),
      clusterName: prepared.name,
      measurementSalt: fromBase64(prepared.measurementSalt),
      joinMeasurements: joinMeasurements(config),
      apiserverCertSans: [prepared.endpoint],
    },
  });
  if (!equal(answer.clusterId, clusterId)) {
    throw new VerificationError(
      'ERR_CLUSTER_ID',
      `the node made a cluster with the id ${toHex(answer.clusterId)}, but secret and salt of this workspace give ` +
        `${prepared.clusterId}; do not use this cluster: terminate it`,
    );
  }
  return fromUtf8(answer.kubeconfig);
}

/** @returns why the node could not be told; undefined where it was */
async function confirm(
  { config, signal, pauseMs, confirmPatienceMs }: InitInput,
  parts: InitParts,
  state: ClusterState,
): Promise<string | undefined> {
  const clusterId = fromHex(state.clusterId ?? '');
  return confirmInit({
    host: state.endpoint,
    port: BOOTSTRAPPER_PORT,
    initSecret: fromBase64(state.initSecret),
    clusterId,
    verifier: await parts.memberVerifier(config, clusterId),
    signal,
    ...(pauseMs === undefined ? {} : { pauseMs }),
    ...(confirmPatienceMs === undefined ? {} : { patienceMs: confirmPatienceMs }),
  });
}

async function writeConfirmed(
  workspace: Workspace,
  // Until then the order may have to be given again.
  { initUnconfirmed: _, measurementSecret: __, ...state }: ClusterState,
): Promise<ClusterState> {
  await workspace.writeState(state);
  return state;
}

function refuseUnready(workspace: Workspace, state: ClusterState): void {
  if (state.phase === 'creating' || state.phase === 'terminating') {
    throw new WorkspaceError(
      'ERR_NO_CLUSTER',
      `the cluster in ${workspace.folder} is half made (${state.phase}); run: asterism terminate, then: asterism create`,
    );
  }
}

/** What the request says of the cluster's keys. */
type RequestedKeys = Pick<
  MessageInitShape<typeof InitRequestSchema>,
  'kmsUri' | 'storageUri' | 'measurementSecret' | 'kmsCredentials'
>;

interface Preparation {
  readonly prepared: Prepared;
  readonly keys: RequestedKeys;
}

type Prepared = ClusterState & { measurementSalt: string; clusterId: string };

/**
 * Saves everything that the cluster's identity hangs on; a node is called only after that. The salt is saved before a
 * secret is generated: a secret that lies there without it belongs to an earlier cluster.
 */
async function prepare(
  { workspace, masterSecretFile }: InitInput,
  state: ClusterState,
  parts: InitParts,
): Promise<Preparation> {
  if (state.keyHome !== undefined) {
    throw new WorkspaceError(
      'ERR_OTHER_KMS',
      'the init of this cluster was begun with an external KMS, and the configuration now says kms.type: cluster; ' +
        'change that back, or terminate the cluster',
    );
  }
  let secret = await presentSecret(workspace, masterSecretFile, state);
  const measurementSalt = state.measurementSalt ?? toBase64(new Uint8Array(randomBytes(32)));
  if (secret === undefined) {
    await workspace.writeState({ ...state, measurementSalt });
    secret = generateMasterSecret();
    await workspace.createMasterSecret(secret);
  }
  const clusterId = toHex(await parts.clusterIdOf(secret, fromBase64(measurementSalt)));
  if (state.clusterId !== undefined && state.clusterId !== clusterId) {
    throw new AsterismError(
      'ERR_OTHER_MASTER_SECRET',
      'this is not the master secret that the init began with: it gives another cluster id. ' +
        'Give the right one (asterism init --master-secret FILE), or terminate the cluster',
    );
  }
  const prepared: Prepared = { ...state, measurementSalt, clusterId, phase: 'initializing' };
  await workspace.writeState(prepared);
  return { prepared, keys: { kmsUri: parts.kmsUri(secret), storageUri: parts.storageUri() } };
}

/**
 * The same where an external KMS keeps the keys. There is no master secret: this side chooses the one key that the
 * cluster id hangs on, so that it knows the id beforehand here too.
 */
async function prepareExternal(
  { workspace, masterSecretFile }: InitInput,
  state: ClusterState,
  parts: InitParts,
  kms: ExternalKmsConfig,
): Promise<Preparation> {
  if (masterSecretFile !== undefined) {
    throw new WorkspaceError(
      'ERR_MASTER_SECRET',
      `the configuration says kms.type: ${kms.type}, so there is no master secret; leave --master-secret out`,
    );
  }
  const measurementSalt = state.measurementSalt ?? toBase64(new Uint8Array(randomBytes(32)));
  const measurementSecret = state.measurementSecret ?? toBase64(new Uint8Array(randomBytes(32)));
  const secret = fromBase64(measurementSecret);
  const clusterId = toHex(parts.clusterIdOfMeasurementSecret(secret, fromBase64(measurementSalt)));
  const keyHome = externalKeyHome(kms, clusterId, 1);
  const begun = state.keyHome ?? (state.clusterId === undefined ? undefined : OTHER_HOME);
  if (begun !== undefined && (begun.kmsUri !== keyHome.kmsUri || begun.storageUri !== keyHome.storageUri)) {
    throw new WorkspaceError(
      'ERR_OTHER_KMS',
      'the init of this cluster was begun with another KMS or store than the configuration now names; ' +
        'change that back, or terminate the cluster',
    );
  }
  const credentials = credentialBytes(await parts.credentials(kms));
  const prepared: Prepared = {
    ...state,
    measurementSalt,
    measurementSecret,
    clusterId,
    keyHome,
    phase: 'initializing',
  };
  await workspace.writeState(prepared);
  const { kmsUri, storageUri } = keyHome;
  return { prepared, keys: { kmsUri, storageUri, measurementSecret: secret, kmsCredentials: credentials } };
}

/** Of an init that was begun with the cluster's own KMS. */
const OTHER_HOME = { kmsUri: '', storageUri: '' };

/** @returns undefined where one is to be generated. Changes nothing, so that a call that fails here leaves no trace. */
async function presentSecret(
  workspace: Workspace,
  given: string | undefined,
  state: ClusterState,
): Promise<MasterSecret | undefined> {
  const path = given ?? workspace.path(MASTER_SECRET_FILE);
  const secret = await workspace.masterSecret(path);
  if (secret === undefined && (given !== undefined || state.clusterId !== undefined)) {
    throw new WorkspaceError(
      'ERR_NO_MASTER_SECRET',
      state.clusterId === undefined
        ? `${path} does not exist`
        : `${path} does not exist; give the master secret that this init began with ` +
            '(asterism init --master-secret FILE), or terminate the cluster',
    );
  }
  if (secret !== undefined && given === undefined && state.measurementSalt === undefined) {
    throw new WorkspaceError(
      'ERR_EXISTS',
      `${path} is there already: it belongs to an earlier cluster. ` +
        `Use it on purpose with --master-secret ${path}, or move it away`,
    );
  }
  return secret;
}

/** What nodes that join must show: the configuration's values, and that they belong to no cluster yet. */
function joinMeasurements(config: ClusterConfig): Uint8Array {
  const measurements = {
    ...config.attestation.qemuVtpm.measurements,
    [CLUSTER_ID_PCR]: { expected: '00'.repeat(32), warnOnly: false },
  };
  return new TextEncoder().encode(JSON.stringify(measurements));
}
