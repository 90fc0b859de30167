import { join } from 'node:path';
import { AsterismError } from '@asterism/errors/errors';
import { DEFAULT_VERSION, RELEASES } from '@asterism/kubernetes/components/catalogue';
import {
  componentsFolder,
  componentsForWire,
  provideComponents,
  readManifest,
} from '@asterism/kubernetes/components/provide';
import { verifyComponents } from '@asterism/kubernetes/components/verify';
import type { KubernetesComponents, KubernetesVersion } from '../parts.ts';

/** Port of the mirror that serves components to the nodes of a local cluster, at the cluster's endpoint. */
const MIRROR_PORT = 8080;

/** The components in the user's cache. */
export const kubernetesComponents: KubernetesComponents = {
  list: () => Promise.all(RELEASES.map(({ version }) => describe(version))),
  async provide(version, options) {
    await provideComponents(version, options);
  },
  verify: verifyComponents,
  async forNodes(state) {
    const manifest = await readManifest(state.kubernetesVersion);
    if (manifest === undefined) {
      throw new AsterismError(
        'ERR_NOT_BUILT',
        `the components of Kubernetes ${state.kubernetesVersion} are not in the cache any more; ` +
          `run: asterism components build ${state.kubernetesVersion}`,
      );
    }
    return componentsForWire(manifest, `http://${state.endpoint}:${MIRROR_PORT}`);
  },
};

async function describe(version: string): Promise<KubernetesVersion> {
  const manifest = await readManifest(version);
  return {
    version,
    isDefault: version === DEFAULT_VERSION,
    built: manifest !== undefined,
    kubectl: join(componentsFolder(version), 'bin/kubectl'),
    components: (manifest?.components ?? []).map(({ name, installPath, hash }) => ({
      name,
      installPath,
      hash,
    })),
  };
}
