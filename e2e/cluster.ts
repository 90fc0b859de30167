import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type ClusterConfig, CONFIG_FILE } from '@asterism/config/cluster-config';
import type { ClusterState } from '@asterism/config/state';
import { renderClusterConfig } from '@asterism/config/template';
import { Workspace } from '@asterism/config/workspace';

export const ASTERISM = join(import.meta.dirname, '../asterism');

/** Folder of everything that the scenarios of a run make; tools/test sets it (tools/scratch.ts). */
export const SCRATCH = process.env.ASTERISM_E2E_DIR ?? join(tmpdir(), 'asterism-e2e');
/** Workspace of the cluster that scenarios share. */
export const SHARED = join(SCRATCH, 'shared');

/** Why scenarios cannot run here; false where they can. Given to `test` as its `skip`. */
export const SKIP: string | false =
  process.getuid?.() === 0
    ? false
    : 'needs root: local nodes have namespaces, cgroups and mounts of their own';

export interface Result {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface RunOptions {
  readonly workspace?: string;
  readonly timeoutMs?: number;
  readonly stdin?: string;
  /** Standard error is passed on, so that a long command shows where it is. */
  readonly show?: boolean;
  readonly env?: Readonly<Record<string, string>>;
}

/** Runs a program to its end, whatever its exit code. */
export async function run(
  program: string,
  args: readonly string[],
  options: RunOptions = {},
): Promise<Result> {
  const child = spawn(program, args, {
    stdio: ['pipe', 'pipe', 'pipe'],
    env: { ...process.env, ...options.env },
  });
  let stdout = '';
  let stderr = '';
  child.stdout.setEncoding('utf8').on('data', (chunk: string) => {
    stdout += chunk;
  });
  child.stderr.setEncoding('utf8').on('data', (chunk: string) => {
    stderr += chunk;
    if (options.show) process.stderr.write(chunk);
  });
  child.stdin.on('error', () => {});
  child.stdin.end(options.stdin ?? '');
  const timer = setTimeout(() => child.kill('SIGKILL'), options.timeoutMs ?? 120_000);
  try {
    const status = await new Promise<number | null>((resolve, reject) => {
      child.on('error', reject);
      child.on('close', resolve);
    });
    return { status, stdout, stderr };
  } finally {
    clearTimeout(timer);
  }
}

/** Runs the command as a user does. */
export function asterism(args: readonly string[], options: RunOptions = {}): Promise<Result> {
  return run(ASTERISM, ['--workspace', options.workspace ?? SHARED, ...args], options);
}

/** Runs a program that must exit 0. */
export async function must(result: Promise<Result>): Promise<string> {
  const { status, stdout, stderr } = await result;
  if (status !== 0) throw new Error(`exited with ${status}:\n${stdout.slice(-4000)}\n${stderr.slice(-4000)}`);
  return stdout;
}

/** A running cluster and the ways to ask it. */
export interface Cluster {
  readonly workspace: Workspace;
  readonly state: ClusterState;
  readonly controlPlanes: readonly ClusterState['nodes'][number][];
  readonly workers: readonly ClusterState['nodes'][number][];
  kubectl(args: readonly string[], options?: RunOptions): Promise<Result>;
}

/** The shared cluster, made where it is not there: two nodes, attested, Ready. */
export async function sharedCluster(): Promise<Cluster> {
  return cluster(SHARED);
}

/** A cluster in a workspace of its own, for scenarios that break what others need. */
export async function ownCluster(name: string, args: readonly string[] = []): Promise<Cluster> {
  return cluster(join(SCRATCH, name), args);
}

async function cluster(folder: string, args: readonly string[] = []): Promise<Cluster> {
  await mkdir(folder, { recursive: true, mode: 0o700 });
  await must(asterism(['mini', 'up', ...args], { workspace: folder, timeoutMs: 50 * 60_000, show: true }));
  return openCluster(folder);
}

/** How many nodes a cluster of a scenario has. */
export interface Nodes {
  readonly controlPlanes: number;
  readonly workers: number;
}

/** A workspace of its own with a configuration and no cluster yet. */
export async function configuredWorkspace(
  name: string,
  { controlPlanes, workers }: Nodes,
  change: (config: ClusterConfig) => ClusterConfig = (config) => config,
): Promise<Workspace> {
  const folder = join(SCRATCH, name);
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const counts = ['--control-plane-nodes', String(controlPlanes), '--worker-nodes', String(workers)];
  await must(asterism(['config', 'generate', 'local', ...counts], { workspace: folder }));
  const workspace = new Workspace(folder);
  await configure(workspace, change);
  return workspace;
}

/** As {@link configuredWorkspace}, with its machines, which are no cluster yet. */
export async function createdMachines(name: string, nodes: Nodes): Promise<Workspace> {
  const workspace = await configuredWorkspace(name, nodes);
  await must(asterism(['create'], { workspace: workspace.folder, timeoutMs: 10 * 60_000, show: true }));
  return workspace;
}

/** As a user who edits the configuration. */
export async function configure(
  workspace: Workspace,
  change: (config: ClusterConfig) => ClusterConfig,
): Promise<void> {
  const text = renderClusterConfig(change(await workspace.config()));
  await workspace.create(CONFIG_FILE, text, { overwrite: true });
}

/** Removes a workspace and its cluster, unless clusters are to be kept. */
export async function removeWorkspace({ folder }: Workspace): Promise<void> {
  if (process.env.ASTERISM_E2E_KEEP !== undefined) return;
  await must(asterism(['terminate', '--yes'], { workspace: folder, timeoutMs: 300_000 }));
  await rm(folder, { recursive: true, force: true });
}

/** A cluster that a workspace has made already. */
export async function openCluster(folder: string): Promise<Cluster> {
  const workspace = new Workspace(folder);
  const state = await workspace.requireState();
  const kubeconfig = workspace.path('asterism-admin.conf');
  const listed = await must(asterism(['components', 'list', '-o', 'json'], { workspace: folder }));
  const kubectl = kubectlPath(listed, state.kubernetesVersion);
  return {
    workspace,
    state,
    controlPlanes: state.nodes.filter((node) => node.role === 'ControlPlane'),
    workers: state.nodes.filter((node) => node.role === 'Worker'),
    kubectl: (args, options) => run(kubectl, ['--kubeconfig', kubeconfig, ...args], options),
  };
}

function kubectlPath(listed: string, version: string): string {
  const versions: { version: string; kubectl: string }[] = JSON.parse(listed).versions;
  const path = versions.find((entry) => entry.version === version)?.kubectl;
  if (path === undefined || !existsSync(path))
    throw new Error(`kubectl ${version} is not among the components`);
  return path;
}

/** Asks again and again until the answer is there. @throws the last failure when time is up */
export async function eventually<T>(what: string, timeoutMs: number, ask: () => Promise<T>): Promise<T> {
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    try {
      return await ask();
    } catch (cause) {
      if (performance.now() > deadline) throw new Error(`${what}: not within ${timeoutMs} ms`, { cause });
    }
    await sleep(1000);
  }
}

/** Throws unless every one of `count` nodes is Ready. */
export async function assertNodesReady(one: Cluster, count: number): Promise<void> {
  const path =
    '{range .items[*]}{.metadata.name}={.status.conditions[?(@.type=="Ready")].status}{"\\n"}{end}';
  const listed = await must(one.kubectl(['get', 'nodes', '-o', `jsonpath=${path}`, '--request-timeout=10s']));
  const rows = listed.trim().split('\n').filter(Boolean);
  const ready = rows.filter((row) => row.endsWith('=True'));
  if (ready.length !== count)
    throw new Error(`${ready.length} of ${count} nodes are Ready: ${rows.join(', ')}`);
}
