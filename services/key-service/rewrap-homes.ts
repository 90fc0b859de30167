import type { KeyConfiguration } from '@asterism/kms/key-configuration';
import { openKek, openStore } from '@asterism/kms/open';
import { rewrapAll } from '@asterism/kms/rewrap';
import { parseKmsUri } from '@asterism/kms/uri';
import type { KubernetesApi } from '@asterism/kubernetes/api';
import type { Rewrap } from './rotation.ts';

/**
 * What re-wraps every stored key from the older home of a configuration to the newer one.
 * @returns undefined where the configuration says nothing of a rotation to that generation
 */
export function rewrapHomes(
  configuration: KeyConfiguration | undefined,
  kubernetes: KubernetesApi,
  generation: number,
): Rewrap | undefined {
  const [older, newer] = configuration?.homes ?? [];
  if (older === undefined || newer === undefined) return undefined;
  const from = parseKmsUri(older.kmsUri);
  const to = parseKmsUri(newer.kmsUri);
  if (from.kind === 'cluster' || to.kind === 'cluster' || to.generation !== generation) return undefined;
  const { clusterId = '' } = to;

  return async (onProgress, signal) => {
    await using stack = new AsyncDisposableStack();
    const opened = <T extends { close(): Promise<void> }>(part: T): T =>
      stack.adopt(part, (open) => open.close());
    const kekOf = async ({ kmsUri, credentials }: typeof newer) =>
      opened(await openKek({ kmsUri, ...(credentials && { credentials: credentials.kms }) }));
    const { storageUri, credentials } = newer;
    const store = opened(
      await openStore({ storageUri, kubernetes, ...(credentials && { credentials: credentials.storage }) }),
    );
    // Awaited here: what it works with is closed when this function returns.
    return await rewrapAll({
      from: { kek: await kekOf(older), generation: from.generation },
      to: { kek: await kekOf(newer), generation: to.generation },
      store,
      clusterId,
      acceptV26Blobs: from.acceptV26Blobs,
      onProgress,
      signal,
    });
  };
}
