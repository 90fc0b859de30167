import { cacheFolder } from '@asterism/kubernetes/components/cache';
import type { Parts } from '../parts.ts';
import type { Shape } from './mini-config.ts';
import type { Needs } from './requirements.ts';

/**
 * GiB of disk, measured with Kubernetes 1.37: a cluster of one node of each kind holds 4.0; the components 1.4, and
 * building them from an empty cache 6.2 of compiled packages and 3.2 of sources; the image with its Debian tree 0.5.
 */
const GIB = { controlPlane: 3, worker: 2, components: 2, building: 9.5, image: 0.5 };

/** What `mini up` takes of a machine, with what is not in the cache yet. */
export async function needsOf(shape: Shape, { machines, images }: Parts): Promise<Needs> {
  const { controlPlaneNodes, workerNodes, version } = shape;
  const mirrored = process.env.ASTERISM_COMPONENTS_MIRROR !== undefined;
  const components = version.built ? 0 : GIB.components + (mirrored ? 0 : GIB.building);
  const image = (await images.built()) === undefined ? GIB.image : 0;
  return {
    nodes: controlPlaneNodes + workerNodes,
    room: [
      { folder: machines.folder, gib: GIB.controlPlane * controlPlaneNodes + GIB.worker * workerNodes },
      { folder: cacheFolder(), gib: components + image },
    ],
  };
}
