import { equal } from '@asterism/bytes/bytes';
import { fromBase64, fromHex } from '@asterism/bytes/encoding';
import { clusterIdOf, MASTER_SECRET_FILE, type MasterSecret } from '@asterism/config/master-secret';
import type { ClusterState } from '@asterism/config/state';
import { WorkspaceError } from '@asterism/config/workspace';
import { AsterismError } from '@asterism/errors/errors';
import type { Context } from '../context.ts';
import { secretFromShares } from './shares-read.ts';

/** Where a command takes the master secret from: a file, or recovery shares in its place. */
export interface MasterSecretSource {
  /** Default: that of the workspace. */
  readonly masterSecret?: string;
  /** Files of shares. */
  readonly share?: readonly string[];
  /** Shares are asked for on standard input. */
  readonly sharesPrompt?: boolean;
}

/**
 * The master secret. Shares must be of the cluster that the state file of the workspace tells of, where there is one.
 *
 * @throws WorkspaceError (ERR_NO_MASTER_SECRET) where the file does not exist
 * @throws SharesError (ERR_SHARES) where shares are not enough; each that is wrong or foreign is named
 * @throws AsterismError (ERR_FOREIGN_SECRET) where shares give the secret of another cluster than they say
 */
export async function masterSecretFor(
  context: Pick<Context, 'workspace' | 'out' | 'signal'>,
  { masterSecret, share = [], sharesPrompt = false }: MasterSecretSource,
): Promise<MasterSecret> {
  const { workspace } = context;
  if (share.length === 0 && !sharesPrompt) return masterSecretOfFile(context, masterSecret);
  const state = await workspace.state();
  const wanted = state?.clusterId === undefined ? undefined : fromHex(state.clusterId);
  const source = sharesPrompt ? 'standard input' : { files: share };
  const { secret, clusterId: found } = await secretFromShares(context, source, wanted);
  if (wanted === undefined)
    context.out.note(`the shares are of cluster ${found}; there is no state file to compare that with`);
  checkOfCluster(secret, state, 'the shares');
  return secret;
}

/**
 * The master secret of a file.
 * @param file default: that of the workspace
 * @throws WorkspaceError (ERR_NO_MASTER_SECRET)
 */
export async function masterSecretOfFile(
  { workspace }: Pick<Context, 'workspace'>,
  file: string | undefined,
): Promise<MasterSecret> {
  const path = file ?? workspace.path(MASTER_SECRET_FILE);
  const secret = await workspace.masterSecret(path);
  if (secret !== undefined) return secret;
  throw new WorkspaceError('ERR_NO_MASTER_SECRET', `${path} does not exist; name it with --master-secret`);
}

/**
 * Holds a secret against the cluster id that follows from it, where the state file has what that takes.
 * @param what is named in the error, e.g. the file
 * @throws AsterismError (ERR_FOREIGN_SECRET)
 */
export function checkOfCluster(secret: MasterSecret, state: ClusterState | undefined, what: string): void {
  if (state?.clusterId === undefined || state.measurementSalt === undefined) return;
  const found = clusterIdOf(secret, fromBase64(state.measurementSalt));
  if (equal(found, fromHex(state.clusterId))) return;
  throw new AsterismError(
    'ERR_FOREIGN_SECRET',
    `${what}: this is not the master secret of the cluster ${state.name}, whose id ${state.clusterId} does not ` +
      'follow from it; use that of the cluster, or the workspace that made the other one (--workspace)',
  );
}
