import { type ClusterConfig, CONFIG_FILE } from '@asterism/config/cluster-config';
import type { ClusterState } from '@asterism/config/state';
import { renderClusterConfig } from '@asterism/config/template';
import { type Workspace, WorkspaceError } from '@asterism/config/workspace';
import type { Output } from '../output.ts';
import type { KubernetesVersion, NodeImage, Parts } from '../parts.ts';
import { chooseVersion } from './kubernetes-version.ts';
import { writeImage } from './write-image.ts';

/** What the command line says of the cluster. Undefined: as it is there; in a new configuration the default. */
export interface Wanted {
  readonly controlPlaneNodes: number | undefined;
  readonly workerNodes: number | undefined;
  readonly kubernetesVersion: string | undefined;
}

/** What the cluster will be, or is. */
export interface Shape {
  readonly version: KubernetesVersion;
  readonly controlPlaneNodes: number;
  readonly workerNodes: number;
}

/**
 * The shape of the cluster that is there; else as configured; else as wanted.
 *
 * @param state of a cluster that stays
 * @throws WorkspaceError (ERR_EXISTS) the command line wants another one than there is
 */
export async function shapeOf(
  workspace: Workspace,
  parts: Parts,
  wanted: Wanted,
  state: ClusterState | undefined,
): Promise<Shape> {
  if (state === undefined && (await workspace.read(CONFIG_FILE)) === undefined) {
    return {
      version: await chooseVersion(parts.components, wanted.kubernetesVersion),
      controlPlaneNodes: wanted.controlPlaneNodes ?? 1,
      workerNodes: wanted.workerNodes ?? 1,
    };
  }
  const there = state === undefined ? configured(await workspace.config()) : made(state);
  const source = state === undefined ? workspace.path(CONFIG_FILE) : `the cluster ${state.name}`;
  const version = await chooseVersion(parts.components, there.kubernetesVersion);
  const wantedVersion =
    wanted.kubernetesVersion === undefined
      ? undefined
      : (await chooseVersion(parts.components, wanted.kubernetesVersion)).version;
  for (const [what, given, found] of [
    ['control-plane nodes', wanted.controlPlaneNodes, there.controlPlaneNodes],
    ['worker nodes', wanted.workerNodes, there.workerNodes],
    ['as Kubernetes version', wantedVersion, there.kubernetesVersion],
  ] as const) {
    if (given === undefined || given === found) continue;
    throw new WorkspaceError(
      'ERR_EXISTS',
      state === undefined
        ? `${source} says ${found} ${what}, the command line ${given}; change the file, or use another workspace (--workspace)`
        : `${source} is there already with ${found} ${what}, the command line says ${given}; leave the flag out, ` +
            'use another workspace (--workspace), or remove the cluster with `asterism mini down`',
    );
  }
  return { version, controlPlaneNodes: there.controlPlaneNodes, workerNodes: there.workerNodes };
}

function configured({ kubernetesVersion, provider }: ClusterConfig) {
  const { controlPlaneNodes, workerNodes } = provider.local;
  return { kubernetesVersion, controlPlaneNodes, workerNodes };
}

function made({ kubernetesVersion, nodes }: ClusterState) {
  const controlPlaneNodes = nodes.filter((node) => node.role === 'ControlPlane').length;
  return { kubernetesVersion, controlPlaneNodes, workerNodes: nodes.length - controlPlaneNodes };
}

/** The configuration of the workspace, made where there is none, with the image of this release. */
export async function configure(
  workspace: Workspace,
  out: Output,
  shape: Shape,
  image: NodeImage,
): Promise<ClusterConfig> {
  if ((await workspace.read(CONFIG_FILE)) === undefined) {
    const text = renderClusterConfig({
      version: 'v1',
      name: 'mini',
      kubernetesVersion: shape.version.version,
      image: image.reference,
      provider: {
        local: {
          controlPlaneNodes: shape.controlPlaneNodes,
          workerNodes: shape.workerNodes,
          stateDiskMiB: 4096,
          egress: false,
        },
      },
      attestation: { qemuVtpm: { acceptUnauthenticatedTpm: true, measurements: image.measurements } },
      kms: { type: 'cluster' },
    });
    await workspace.create(CONFIG_FILE, text);
    return await workspace.config();
  }
  const config = await workspace.config();
  if (config.image === image.reference) return config;
  // No machine runs yet, and what is expected of them follows from the image that they will boot.
  await writeImage(workspace, image);
  out.note(`${workspace.path(CONFIG_FILE)} now names the image of this release, ${image.reference}`);
  return await workspace.config();
}
