import { join } from 'node:path';
import { DEFAULT_VERSION, RELEASES } from '@asterism/kubernetes/components/catalogue';
import { componentsFolder, componentsForWire, readManifest } from '@asterism/kubernetes/components/manifest';
import { provideComponents } from '@asterism/kubernetes/components/provide';
import { verifyComponents } from '@asterism/kubernetes/components/verify';
import { componentsOfCluster } from '@asterism/provider-local/components';
import { MIRROR_PORT } from '@asterism/provider-local/mirror';
import type { KubernetesComponents, KubernetesVersion } from '../parts.ts';

/** The components in the user's cache, and those that a cluster was made with. */
export const kubernetesComponents: KubernetesComponents = {
  list: () => Promise.all(RELEASES.map(({ version }) => describe(version))),
  async provide(version, options) {
    await provideComponents(version, options);
  },
  verify: verifyComponents,
  async forNodes(state) {
    // Not those of the cache, which may be built anew between create and init.
    const manifest = await componentsOfCluster(state.uid);
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
