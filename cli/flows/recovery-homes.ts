import type { ClusterConfig } from '@asterism/config/cluster-config';
import { NEXT_MASTER_SECRET_FILE } from '@asterism/config/master-secret';
import { WorkspaceError } from '@asterism/config/workspace';
import { NO_STORE_URI, renderClusterKmsUri } from '@asterism/kms/cluster-uri';
import type { Context } from '../context.ts';
import { externalKeyHome, homeWithCredentials, requestOf } from './key-home.ts';
import { type MasterSecretSource, masterSecretFor } from './master-secret-source.ts';
import type { RecoveryHome } from './recover-nodes.ts';

export interface RecoverySource extends MasterSecretSource {
  /** 64 hexadecimal digits, where there is no state file. */
  readonly clusterId?: string;
  readonly generation?: number;
}

/**
 * Where the nodes of a cluster get the keys of their disks: from the master secret, or from the external KMS of the
 * state file (of the configuration, where that file is lost). While keys are rotated there are two, the newer one first.
 *
 * @throws WorkspaceError (ERR_OTHER_KMS) the options are for the other kind; (ERR_NO_CLUSTER) the id is not known
 */
export async function recoveryHomes(
  context: Pick<Context, 'workspace' | 'out' | 'signal'>,
  config: ClusterConfig,
  options: RecoverySource,
): Promise<RecoveryHome[]> {
  const { workspace } = context;
  const state = await workspace.state();
  const external =
    state?.clusterId === undefined ? config.kms.type !== 'cluster' : state.keyHome !== undefined;
  if (!external) {
    const secrets = [await masterSecretFor(context, options)];
    const next = await workspace.masterSecret(workspace.path(NEXT_MASTER_SECRET_FILE));
    if (next !== undefined && options.masterSecret === undefined) secrets.unshift(next);
    return secrets.map((secret) => ({ kmsUri: renderClusterKmsUri(secret), storageUri: NO_STORE_URI }));
  }
  const { masterSecret, share = [], sharesPrompt = false } = options;
  if (masterSecret !== undefined || share.length > 0 || sharesPrompt) {
    throw new WorkspaceError(
      'ERR_OTHER_KMS',
      'an external KMS keeps the keys of this cluster: there is no master secret and there are no shares; leave them out',
    );
  }
  const homes =
    state?.keyHome === undefined
      ? [homeOf(config, options)]
      : [...(state.nextKeyHome ? [state.nextKeyHome] : []), state.keyHome];
  return Promise.all(homes.map(async (home) => requestOf(await homeWithCredentials(home, workspace.folder))));
}

function homeOf({ kms }: ClusterConfig, { clusterId, generation = 1 }: RecoverySource) {
  if (clusterId === undefined || kms.type === 'cluster') {
    throw new WorkspaceError(
      'ERR_NO_CLUSTER',
      'without a state file the id of the cluster must be given, because keys are bound to it: --cluster-id HEX',
    );
  }
  return externalKeyHome(kms, clusterId, generation);
}
