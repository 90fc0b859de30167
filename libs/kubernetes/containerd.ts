import { access, readdir } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { UnreachableError } from '@asterism/errors/errors';
import { runChecked, runProgram } from '@asterism/runtime/program';

export const CONTAINERD_SOCKET = '/run/containerd/containerd.sock';
/** The CRI's namespace: only images in it are seen by the kubelet. */
const NAMESPACE = 'k8s.io';

/** Starts containerd and waits until it answers. */
export async function startContainerd(timeoutMs = 60_000, signal?: AbortSignal): Promise<void> {
  await runChecked('systemctl', ['start', 'containerd.service'], {
    timeoutMs,
    ...(signal === undefined ? {} : { signal }),
  });
  const end = Date.now() + timeoutMs;
  while (true) {
    const socket = await access(CONTAINERD_SOCKET).then(
      () => true,
      () => false,
    );
    if (socket) {
      const answer = await runProgram('ctr', ['--address', CONTAINERD_SOCKET, 'version'], {
        timeoutMs: 5000,
      });
      if (answer.code === 0) return;
    }
    if (Date.now() > end) throw new UnreachableError(`containerd did not answer within ${timeoutMs} ms`);
    await sleep(200, undefined, signal === undefined ? {} : { signal });
  }
}

/** The .tar files of a folder, sorted; none where the folder is missing. */
export async function imageArchives(folder: string): Promise<string[]> {
  const names = await readdir(folder).catch(() => [] as string[]);
  return names
    .filter((name) => name.endsWith('.tar') && !name.startsWith('.'))
    .sort()
    .map((name) => `${folder}/${name}`);
}

/** Imports an OCI or Docker image archive. Importing one that is there already changes nothing. */
export async function importImage(archive: string, signal?: AbortSignal): Promise<void> {
  await runChecked(
    'ctr',
    ['--address', CONTAINERD_SOCKET, '--namespace', NAMESPACE, 'images', 'import', archive],
    { timeoutMs: 300_000, ...(signal === undefined ? {} : { signal }) },
  );
}
