import { clusterIdPcr } from '@asterism/attestation/cluster-id';
import { readKmsCredentials } from '@asterism/config/kms-credentials';
import { clusterIdOf } from '@asterism/config/master-secret';
import type { ClusterState } from '@asterism/config/state';
import { clusterId } from '@asterism/crypto/derive';
import { NO_STORE_URI, renderClusterKmsUri } from '@asterism/kms/cluster-uri';
import type { Context } from '../context.ts';
import type { Parts } from '../parts.ts';
import { type InitParts, initCluster } from './init-cluster.ts';

/** A created machine needs this long at most to boot and listen. */
const PATIENCE_MS = 5 * 60_000;

/** Init with its phases shown. */
export async function runInit(
  { workspace, progress, out, signal }: Context,
  parts: Parts,
  masterSecretFile: string | undefined,
): Promise<ClusterState> {
  const config = await workspace.config();
  const initParts: InitParts = {
    clusterIdOf: async (secret, salt) => clusterIdOf(secret, salt),
    kmsUri: renderClusterKmsUri,
    storageUri: () => NO_STORE_URI,
    clusterIdOfMeasurementSecret: clusterId,
    credentials: (kms) => readKmsCredentials(kms, workspace.folder, process.env),
    verifier: (given) => parts.verifier(given, undefined),
    memberVerifier: async (given, id) => parts.verifier(given, await clusterIdPcr(id)),
    components: async (state) => [...(await parts.components.forNodes(state))],
  };
  const init = async (detail: (text: string) => void) => {
    const started = new Map<string, number>();
    return await initCluster(
      {
        workspace,
        config,
        masterSecretFile,
        patienceMs: PATIENCE_MS,
        signal,
        onPeer: (verdict) => {
          for (const check of verdict?.checks ?? []) {
            if (check.outcome === 'warning') out.warn(`${check.name}: ${check.detail}`);
          }
          detail('the first node is verified');
        },
        onProgress: ({ phase, state, number, total }) => {
          if (state === 'started') {
            started.set(phase, performance.now());
            detail(`${phase} (${number} of ${total})`);
          } else if (state === 'done') {
            progress.part(`init ${phase}`, performance.now() - (started.get(phase) ?? performance.now()));
          }
        },
        onLog: (line) => detail(line),
        onRetry: (why) => detail(`waiting for the first node: ${why}`),
        onUnconfirmed: (why) =>
          out.warn(
            `the first node could not be told that the kubeconfig is here (${why}). For a day it gives it to whoever ` +
              'has the master secret and the init secret; to end that, run: asterism init',
          ),
      },
      initParts,
    );
  };
  return workspace.exclusively(() => progress.phase('init', init));
}
