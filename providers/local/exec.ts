import { spawn } from 'node:child_process';
import { AsterismError } from '@asterism/errors/errors';
import { nodeOf, readCluster } from './cluster.ts';
import { runningInit } from './node.ts';

/** Runs a program inside a node. @returns its exit code */
export async function execInNode(
  uid: string,
  name: string,
  argv: readonly string[],
  options: {
    readonly signal: AbortSignal;
    readonly stdio?: 'inherit' | 'pipe';
    readonly onOutput?: (chunk: Buffer) => void;
  },
): Promise<number> {
  const cluster = await readCluster(uid);
  const node = nodeOf(cluster, name);
  const init = await runningInit(uid, node.name);
  if (init === undefined)
    throw new AsterismError(
      'ERR_NODE_STOPPED',
      `${name} does not run; start it with: asterism local start ${name}`,
    );
  const environment = [
    'env',
    '-i',
    'PATH=/run/state/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
    'KUBECONFIG=/etc/kubernetes/admin.conf',
    `TERM=${process.env.TERM ?? 'dumb'}`,
    'HOME=/root',
  ];
  const child = spawn(
    'nsenter',
    ['-t', String(init.pid), '-m', '-u', '-i', '-n', '-p', '-C', '-r', '-w', ...environment, ...argv],
    {
      stdio: options.stdio === 'pipe' ? ['ignore', 'pipe', 'pipe'] : 'inherit',
      signal: options.signal,
    },
  );
  if (options.onOutput !== undefined) {
    child.stdout?.on('data', options.onOutput);
    child.stderr?.on('data', options.onOutput);
  }
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code, name_) => resolve(code ?? (name_ === 'SIGINT' ? 130 : 1)));
  });
}
