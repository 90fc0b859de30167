import { pathToFileURL } from 'node:url';
import { type LocalCluster, listClusters } from './cluster.ts';
import { isProcess, startTimeOf } from './process.ts';
import { removeLocalCluster } from './provider.ts';

/** Name of a cluster that a test of this process makes: who finds it later can tell whether the process is still there. */
export async function testClusterName(): Promise<string> {
  return `test-${process.pid}-${await startTimeOf(process.pid)}`;
}

/** Clusters whose test was killed. No workspace names them, so nobody else would remove them. */
export async function abandonedClusters(): Promise<LocalCluster[]> {
  const abandoned: LocalCluster[] = [];
  for (const cluster of await listClusters()) {
    const [, pid, started] = /^test-(\d+)-(\d+)$/.exec(cluster.name) ?? [];
    if (pid !== undefined && !(await isProcess(Number(pid), started!))) abandoned.push(cluster);
  }
  return abandoned;
}

// tools/scratch.ts runs this file: tools do not import providers.
if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  for (const { uid, name } of await abandonedClusters()) {
    console.log(`test: ${name} was killed; its cluster ${uid} is removed`);
    await removeLocalCluster(uid, { signal: AbortSignal.timeout(120_000), onDetail() {} });
  }
}
