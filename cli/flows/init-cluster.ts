import { randomBytes } from 'node:crypto';
import { CLUSTER_ID_PCR } from '@asterism/attestation/cluster-id';
import type { Verifier } from '@asterism/attestation/types';
import { equal } from '@asterism/bytes/bytes';
import { fromBase64, fromHex, fromUtf8, toBase64, toHex } from '@asterism/bytes/encoding';
import type { ClusterConfig } from '@asterism/config/cluster-config';
import { generateMasterSecret, MASTER_SECRET_FILE, type MasterSecret } from '@asterism/config/master-secret';
import type { ClusterState } from '@asterism/config/state';
import { KUBECONFIG_FILE, type Workspace, WorkspaceError } from '@asterism/config/workspace';
import { AsterismError, VerificationError } from '@asterism/errors/errors';
import type { InitRequestSchema } from '@asterism/rpc/gen/init_pb';
import type { MessageInitShape } from '@bufbuild/protobuf';
import { unmarkedOrMember } from './cluster-identity.ts';
import { type InitPlan, initialize } from './initialize.ts';

export const BOOTSTRAPPER_PORT = 9000;

/** What init needs from elsewhere. */
export interface InitParts {
  /** Cluster id (32 bytes) of a master secret and a measurement salt. */
  clusterIdOf(secret: MasterSecret, measurementSalt: Uint8Array): Promise<Uint8Array>;
  kmsUri(secret: MasterSecret): string;
  storageUri(): string;
  /** Judges a node by the configuration, PCR 15 left out. */
  verifier(config: ClusterConfig): Verifier;
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
}

/**
 * Initialises the cluster of a workspace, or goes on with an init that was stopped or failed.
 *
 * Everything that the identity of the cluster hangs on is chosen and saved before the first call. So the id is known
 * beforehand, a node that was marked by an earlier attempt can be told from a foreign one, and a crash of this
 * command at any point loses nothing.
 */
export async function initCluster(input: InitInput, parts: InitParts): Promise<ClusterState> {
  const { workspace, config } = input;
  const state = await workspace.requireState();
  refuseUnready(workspace, state);
  if (state.phase === 'initialized') return state;
  if (state.phase === 'created' && (await workspace.read(KUBECONFIG_FILE)) !== undefined) {
    throw new WorkspaceError(
      'ERR_EXISTS',
      `${workspace.path(KUBECONFIG_FILE)} is there, but this cluster has made none yet; move it away`,
    );
  }

  const { secret, prepared } = await prepare(input, state, parts);
  const clusterId = fromHex(prepared.clusterId);
  const answer = await initialize({
    ...input,
    host: prepared.endpoint,
    port: BOOTSTRAPPER_PORT,
    verifier: await unmarkedOrMember(parts.verifier(config), clusterId),
    request: {
      kmsUri: parts.kmsUri(secret),
      storageUri: parts.storageUri(),
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
  // Only an earlier attempt of this very init can have written one: see above.
  await workspace.create(KUBECONFIG_FILE, fromUtf8(answer.kubeconfig), { overwrite: true });
  const done: ClusterState = { ...prepared, phase: 'initialized' };
  await workspace.writeState(done);
  return done;
}

function refuseUnready(workspace: Workspace, state: ClusterState): void {
  if (state.phase === 'creating' || state.phase === 'terminating') {
    throw new WorkspaceError(
      'ERR_NO_CLUSTER',
      `the cluster in ${workspace.folder} is half made (${state.phase}); run: asterism terminate, then: asterism create`,
    );
  }
}

type Prepared = ClusterState & { measurementSalt: string; clusterId: string };

/** Saves, in this order: the salt, the master secret, the cluster id. A node is called only after all three. */
async function prepare(
  { workspace, masterSecretFile }: InitInput,
  state: ClusterState,
  parts: InitParts,
): Promise<{ secret: MasterSecret; prepared: Prepared }> {
  const first = state.measurementSalt === undefined;
  const own = await workspace.masterSecret();
  if (first && masterSecretFile === undefined && own !== undefined) {
    throw new WorkspaceError(
      'ERR_EXISTS',
      `${workspace.path(MASTER_SECRET_FILE)} is there already: it belongs to an earlier cluster. ` +
        `Use it on purpose with --master-secret ${MASTER_SECRET_FILE}, or move it away`,
    );
  }
  const measurementSalt = state.measurementSalt ?? toBase64(new Uint8Array(randomBytes(32)));
  if (first) await workspace.writeState({ ...state, measurementSalt });

  let secret = masterSecretFile === undefined ? own : await workspace.masterSecret(masterSecretFile);
  if (secret === undefined) {
    if (masterSecretFile !== undefined || state.clusterId !== undefined) {
      throw new WorkspaceError(
        'ERR_NO_MASTER_SECRET',
        `${masterSecretFile ?? workspace.path(MASTER_SECRET_FILE)} does not exist; ` +
          'give the master secret that this init began with (--master-secret FILE), or terminate the cluster',
      );
    }
    secret = generateMasterSecret();
    await workspace.createMasterSecret(secret);
  }

  const clusterId = toHex(await parts.clusterIdOf(secret, fromBase64(measurementSalt)));
  if (state.clusterId !== undefined && state.clusterId !== clusterId) {
    throw new AsterismError(
      'ERR_OTHER_MASTER_SECRET',
      'this is not the master secret that the init began with: it gives another cluster id. ' +
        'Give the right one with --master-secret FILE, or terminate the cluster',
    );
  }
  const prepared: Prepared = { ...state, measurementSalt, clusterId, phase: 'initializing' };
  await workspace.writeState(prepared);
  return { secret, prepared };
}

/** What nodes that join must show: the configuration's values, and that they belong to no cluster yet. */
function joinMeasurements(config: ClusterConfig): Uint8Array {
  const measurements = {
    ...config.attestation.qemuVtpm.measurements,
    [CLUSTER_ID_PCR]: { expected: '00'.repeat(32), warnOnly: false },
  };
  return new TextEncoder().encode(JSON.stringify(measurements));
}
