import { randomUUID } from 'node:crypto';
import { rmdir } from 'node:fs/promises';
import { type ClusterConfig, CONFIG_FILE } from '@asterism/config/cluster-config';
import { MASTER_SECRET_FILE } from '@asterism/config/master-secret';
import { type ClusterState, STATE_FILE } from '@asterism/config/state';
import { renderClusterConfig } from '@asterism/config/template';
import { KUBECONFIG_FILE, WorkspaceError } from '@asterism/config/workspace';
import { AsterismError, UnreachableError } from '@asterism/errors/errors';
import type { Context } from '../context.ts';
import { EXIT } from '../exit-codes.ts';
import type { KubernetesVersion, Parts } from '../parts.ts';
import { createCluster } from './create-cluster.ts';
import { waitForNodes } from './kubernetes-nodes.ts';
import { runInit } from './run-init.ts';
import { runVerify } from './run-verify.ts';
import { terminateCluster } from './terminate-cluster.ts';
import { exitCodeOfAll, type NodeVerdict } from './verify-node.ts';
import { writeImage } from './write-image.ts';

/** Times of the phases of the last `mini up` that made something, for bench/. */
export const PHASES_FILE = 'phases.json';

const NODES_READY_MS = 10 * 60_000;

export interface MiniOptions {
  /** Undefined: as configured; in a new configuration 1 each. */
  readonly controlPlaneNodes: number | undefined;
  readonly workerNodes: number | undefined;
  readonly kubernetesVersion: string | undefined;
}

export interface MiniResult {
  readonly state: ClusterState;
  readonly kubectl: string;
  readonly verdicts: readonly NodeVerdict[];
  /** The cluster was there before. */
  readonly already: boolean;
}

/**
 * From whatever there is to a cluster whose every node is Ready and verified. Each step that is done already is
 * left out, so that running it again goes on where it was.
 */
export async function miniUp(context: Context, parts: Parts, options: MiniOptions): Promise<MiniResult> {
  const { workspace, progress, signal } = context;
  let state = await workspace.state();
  const already = state?.phase === 'initialized';
  const version = await chooseVersion(parts, state?.kubernetesVersion ?? options.kubernetesVersion);

  if (state?.phase === 'creating' || state?.phase === 'terminating') {
    context.out.note(`the cluster ${state.name} is half made: it is removed and made anew`);
    await terminateCluster(context, parts.machines);
    state = undefined;
  }
  if (state !== undefined) await checkRunning(state, parts);
  if (state === undefined) {
    await progress.phase(`components of ${version.version}`, (onDetail) =>
      parts.components.provide(version.version, { signal, onDetail, official: 'first' }),
    );
    const config = await configure(context, parts, options, version.version);
    state = await progress.phase('machines', (onDetail) =>
      createCluster(workspace, config, parts.machines, { signal, onDetail }),
    );
  }
  if (state.phase !== 'initialized') state = await runInit(context, parts, undefined);
  const kubeconfig = await workspace.read(KUBECONFIG_FILE);
  if (kubeconfig === undefined) {
    throw new WorkspaceError(
      'ERR_NO_KUBECONFIG',
      `${workspace.path(KUBECONFIG_FILE)} is missing; restore it`,
    );
  }
  const names = state.nodes.map((node) => node.name);
  await progress.phase('nodes Ready', (detail) =>
    waitForNodes(kubeconfig, names, NODES_READY_MS, signal, detail),
  );
  const verdicts = await progress.phase('verify', (detail) => verifyWhenUp(context, parts, detail));
  if (!already) await writePhases(context);
  return { state, kubectl: version.kubectl, verdicts, already };
}

/** Removes the cluster and every file that `mini up` made; the folder too where nothing else is in it. */
export async function miniDown(context: Context, parts: Parts): Promise<void> {
  const { workspace } = context;
  if ((await workspace.state()) !== undefined) await terminateCluster(context, parts.machines);
  for (const name of [STATE_FILE, KUBECONFIG_FILE, MASTER_SECRET_FILE, CONFIG_FILE, PHASES_FILE]) {
    await workspace.remove(name);
  }
  await rmdir(workspace.folder).catch((error: NodeJS.ErrnoException) => {
    if (!['ENOTEMPTY', 'EEXIST', 'ENOENT', 'EBUSY', 'EINVAL'].includes(error.code ?? '')) throw error;
  });
}

/** The configuration of the workspace, made where there is none, with the image of this release. */
async function configure(
  { workspace, progress, out, signal }: Context,
  parts: Parts,
  options: MiniOptions,
  kubernetesVersion: string,
): Promise<ClusterConfig> {
  const image = await progress.phase('node image', (onDetail) => parts.images.build({ signal, onDetail }));
  if ((await workspace.read(CONFIG_FILE)) === undefined) {
    const text = renderClusterConfig({
      version: 'v1',
      name: 'mini',
      kubernetesVersion,
      image: image.reference,
      provider: {
        local: {
          controlPlaneNodes: options.controlPlaneNodes ?? 1,
          workerNodes: options.workerNodes ?? 1,
          stateDiskMiB: 4096,
        },
      },
      attestation: { qemuVtpm: { acceptUnauthenticatedTpm: true, measurements: image.measurements } },
      kms: { type: 'cluster' },
    });
    await workspace.create(CONFIG_FILE, text);
    return await workspace.config();
  }
  const config = await workspace.config();
  const local = config.provider.local;
  for (const [what, wanted, there] of [
    ['control-plane nodes', options.controlPlaneNodes, local.controlPlaneNodes],
    ['worker nodes', options.workerNodes, local.workerNodes],
    ['as Kubernetes version', options.kubernetesVersion, config.kubernetesVersion],
  ] as const) {
    if (wanted === undefined || wanted === there) continue;
    throw new WorkspaceError(
      'ERR_EXISTS',
      `${workspace.path(CONFIG_FILE)} says ${there} ${what}, the command line ${wanted}; ` +
        'change the file, or use another workspace (--workspace)',
    );
  }
  if (config.image === image.reference) return config;
  // No machine runs yet, and what is expected of them follows from the image that they will boot.
  await writeImage(workspace, image);
  out.note(`${workspace.path(CONFIG_FILE)} now names the image of this release, ${image.reference}`);
  return await workspace.config();
}

async function chooseVersion(parts: Parts, wanted: string | undefined): Promise<KubernetesVersion> {
  const versions = await parts.components.list();
  const found = versions.find((entry) => (wanted === undefined ? entry.isDefault : entry.version === wanted));
  if (found !== undefined) return found;
  throw new AsterismError(
    'ERR_KUBERNETES_VERSION',
    `Kubernetes ${wanted} is not in the catalogue; there are: ${versions.map((entry) => entry.version).join(', ')}`,
  );
}

async function checkRunning(state: ClusterState, parts: Parts): Promise<void> {
  const machines = await parts.machines.status(state);
  const stopped = state.nodes.filter(
    (node) => !machines.some((one) => one.name === node.name && one.running),
  );
  if (stopped.length === 0) return;
  const names = stopped.map((node) => node.name).join(', ');
  throw new UnreachableError(
    `the cluster ${state.name} is there, but these nodes do not run: ${names}. Start them with ` +
      '`asterism local start NODE` (then `asterism recover` where no control plane is left), or remove the cluster ' +
      'with `asterism mini down`',
    { code: 'ERR_NODES_STOPPED' },
  );
}

/** The VerificationService of a node starts some seconds after the node is Ready. */
async function verifyWhenUp(
  context: Context,
  parts: Parts,
  detail: (text: string) => void,
): Promise<NodeVerdict[]> {
  const deadline = performance.now() + 120_000;
  for (;;) {
    const verdicts = await runVerify(context, parts, {});
    const silent = verdicts.filter((verdict) => verdict.outcome === 'unreachable');
    if (exitCodeOfAll(verdicts) !== EXIT.notReachable || performance.now() > deadline) return verdicts;
    detail(`waiting for the VerificationService of ${silent.map((verdict) => verdict.node).join(', ')}`);
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
}

async function writePhases({ workspace, progress }: Context): Promise<void> {
  const record = { run: randomUUID(), date: new Date().toISOString(), phases: progress.times };
  await workspace.create(PHASES_FILE, `${JSON.stringify(record, null, 2)}\n`, { overwrite: true });
}
