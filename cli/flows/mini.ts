import { randomUUID } from 'node:crypto';
import { CONFIG_FILE } from '@asterism/config/cluster-config';
import { generateMasterSecret, MASTER_SECRET_FILE, type MasterSecret } from '@asterism/config/master-secret';
import type { ClusterState } from '@asterism/config/state';
import { KUBECONFIG_FILE, type Workspace, WorkspaceError } from '@asterism/config/workspace';
import { AsterismError, UnreachableError } from '@asterism/errors/errors';
import type { Context } from '../context.ts';
import { EXIT } from '../exit-codes.ts';
import type { MachineStatus } from '../machines.ts';
import type { Parts } from '../parts.ts';
import { createCluster, newUid } from './create-cluster.ts';
import { waitForNodes } from './kubernetes-nodes.ts';
import { configure, type Shape, shapeOf, type Wanted } from './mini-config.ts';
import { fingerprint, type Marker, readMarker, refuseForeign, writeMarker } from './mini-marker.ts';
import { needsOf } from './mini-needs.ts';
import type { Needs } from './requirements.ts';
import { runInit } from './run-init.ts';
import { runVerify } from './run-verify.ts';
import { terminateCluster } from './terminate-cluster.ts';
import { exitCodeOfAll, type NodeVerdict } from './verify-node.ts';

const NODES_READY_MS = 10 * 60_000;

export interface MiniOptions extends Wanted {
  /** Called before a cluster is made on this machine. */
  readonly checkMachine: (needs: Needs) => Promise<void>;
}

export interface MiniResult {
  readonly state: ClusterState;
  readonly kubectl: string;
  readonly verdicts: readonly NodeVerdict[];
  /** What the verdicts are worth. */
  readonly trust: string;
  /** The cluster was there before. */
  readonly already: boolean;
}

/**
 * From whatever there is to a cluster whose every node is Ready and verified. Each step that is done already is
 * left out, so that running it again goes on where it was.
 *
 * @throws WorkspaceError (ERR_NOT_MINI, ERR_EXISTS) what is there is not its own, or not what is wanted
 * @throws AsterismError (ERR_LOCKED) another process is at work in the workspace
 */
export async function miniUp(context: Context, parts: Parts, options: MiniOptions): Promise<MiniResult> {
  return context.workspace.exclusively(() => up(context, parts, options));
}

async function up(context: Context, parts: Parts, options: MiniOptions): Promise<MiniResult> {
  const { workspace, progress, signal, out } = context;
  const marker = await readMarker(workspace);
  const before = await workspace.state();
  refuseForeign(workspace, marker, before);
  const halfMade = before?.phase === 'creating' || before?.phase === 'terminating';
  const already = before?.phase === 'initialized';
  const shape = await shapeOf(workspace, parts, options, halfMade ? undefined : before);

  let state: ClusterState;
  if (before === undefined || halfMade) {
    const secret = (await derivesKeys(workspace)) ? await ownSecret(workspace, marker) : undefined;
    await refuseKubeconfig(workspace, before);
    await options.checkMachine(await needsOf(shape, parts));
    if (halfMade) {
      out.note(`the cluster ${before.name} is half made: it is removed and made anew`);
      await terminateCluster(context, parts.machines);
    }
    state = await make(context, parts, shape, marker, secret);
  } else {
    state = before;
    await checkRunning(state, parts);
  }
  if (!already || state.initUnconfirmed) {
    const secretFile = (await derivesKeys(workspace)) ? workspace.path(MASTER_SECRET_FILE) : undefined;
    state = await runInit(context, parts, secretFile);
  }
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
  if (!already) await writeTimes(context);
  const trust = parts.trustStatement(await workspace.config());
  return { state, kubectl: shape.version.kubectl, verdicts, trust, already };
}

/** Machines in a workspace that has none. The marker comes first: what it does not name, `mini down` leaves alone. */
async function make(
  context: Context,
  parts: Parts,
  shape: Shape,
  before: Marker | undefined,
  present: MasterSecret | undefined,
): Promise<ClusterState> {
  const { workspace, progress, signal, out } = context;
  const { version } = shape.version;
  await progress.phase(`components of ${version}`, (onDetail) =>
    parts.components.provide(version, { signal, onDetail, official: 'first' }),
  );
  const image = await progress.phase('node image', (onDetail) => parts.images.build({ signal, onDetail }));
  const derived = await derivesKeys(workspace);
  const secret = present ?? (derived ? generateMasterSecret() : undefined);
  const uid = newUid();
  const found = (await workspace.read(CONFIG_FILE)) !== undefined;
  const configuration = !found || before?.made.configuration === true;
  // That of an earlier cluster, where this one has none: what `mini up` made, `mini down` removes.
  const masterSecret = secret === undefined ? before?.made.masterSecret : fingerprint(secret);
  const made = { cluster: uid, configuration, ...(masterSecret !== undefined && { masterSecret }) };
  await writeMarker(workspace, { schema: 1, made, phases: [] });
  const config = await configure(workspace, out, shape, image);
  if (secret !== undefined && present === undefined) await workspace.createMasterSecret(secret);
  return progress.phase('machines', (onDetail) =>
    createCluster(workspace, config, parts.machines, { signal, onDetail, uid }),
  );
}

/** Whether the keys of the cluster follow from a master secret, and are not in an external KMS. */
async function derivesKeys(workspace: Workspace): Promise<boolean> {
  const found = (await workspace.read(CONFIG_FILE)) !== undefined;
  return !found || (await workspace.config()).kms.type === 'cluster';
}

/**
 * The master secret of an earlier `mini up`, which the next cluster takes: deleting it could make a copy of a disk
 * unreadable.
 * @throws WorkspaceError (ERR_EXISTS) one is there that `mini up` did not make
 */
async function ownSecret(
  workspace: Workspace,
  marker: Marker | undefined,
): Promise<MasterSecret | undefined> {
  const secret = await workspace.masterSecret();
  if (secret === undefined || fingerprint(secret) === marker?.made.masterSecret) return secret;
  const path = workspace.path(MASTER_SECRET_FILE);
  throw new WorkspaceError(
    'ERR_EXISTS',
    `${path} is there, and \`mini up\` did not make it: move it away, use another workspace (--workspace), or make a ` +
      `cluster with it step by step: asterism create, then asterism init --master-secret ${path}`,
  );
}

/** @throws WorkspaceError (ERR_EXISTS) one is there that no cluster of this workspace made */
async function refuseKubeconfig(workspace: Workspace, state: ClusterState | undefined): Promise<void> {
  if (state?.clusterId !== undefined || (await workspace.read(KUBECONFIG_FILE)) === undefined) return;
  throw new WorkspaceError(
    'ERR_EXISTS',
    `${workspace.path(KUBECONFIG_FILE)} is there, but this workspace has no cluster; move it away, or use another ` +
      'workspace (--workspace)',
  );
}

async function checkRunning(state: ClusterState, parts: Parts): Promise<void> {
  let machines: readonly MachineStatus[];
  try {
    machines = await parts.machines.status(state);
  } catch (error) {
    if (!(error instanceof AsterismError) || error.code !== 'ERR_NO_CLUSTER') throw error;
    throw new UnreachableError(
      `the machines of the cluster ${state.name} are gone from this machine; remove what is left of it with ` +
        '`asterism mini down`',
      { code: 'ERR_MACHINES_GONE' },
    );
  }
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

async function writeTimes({ workspace, progress }: Context): Promise<void> {
  const marker = await readMarker(workspace);
  if (marker === undefined) return;
  const last = { run: randomUUID(), date: new Date().toISOString(), phases: progress.times };
  await writeMarker(workspace, { ...marker, ...last });
}
