import { AsterismError } from '@asterism/errors/errors';
import type { KubernetesComponents, KubernetesVersion } from '../parts.ts';

/** What {@link chooseVersion} takes, for the help of a flag or argument. */
export const VERSION_HELP = 'Kubernetes version of the catalogue, e.g. v1.37.2, or v1.37 for its newest';

/**
 * A version of the catalogue by what a person wrote: `v1.37.2`, or `v1.37` for the newest of that minor version; the
 * `v` may be left out.
 *
 * @param wanted undefined: the default of the catalogue
 * @throws AsterismError (ERR_KUBERNETES_VERSION) with those that there are
 */
export async function chooseVersion(
  components: Pick<KubernetesComponents, 'list'>,
  wanted: string | undefined,
): Promise<KubernetesVersion> {
  const versions = await components.list();
  const found = wanted === undefined ? versions.find((entry) => entry.isDefault) : newestOf(versions, wanted);
  if (found !== undefined) return found;
  throw new AsterismError(
    'ERR_KUBERNETES_VERSION',
    `Kubernetes ${wanted} is not in the catalogue; there are: ${versions.map((entry) => entry.version).join(', ')}`,
  );
}

function newestOf(versions: readonly KubernetesVersion[], wanted: string): KubernetesVersion | undefined {
  const name = wanted.startsWith('v') ? wanted : `v${wanted}`;
  const exact = versions.find((entry) => entry.version === name);
  if (exact !== undefined || !/^v\d+\.\d+$/.test(name)) return exact;
  return versions
    .filter((entry) => entry.version.startsWith(`${name}.`))
    .toSorted((a, b) => patchOf(b) - patchOf(a))[0];
}

const patchOf = ({ version }: KubernetesVersion): number => Number(version.split('.')[2]);
