import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, open, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { freePort } from '../free-port.ts';
import { goProgram } from './go-program.ts';
import { type GoogleFront, type Passing, startGoogleFront } from './google-front.ts';

const START_TIMEOUT_MS = 30_000;
const SCOPE = 'https://www.googleapis.com/auth/devstorage.read_write';
const PAGE = '10';

/**
 * Google Cloud Storage on loopback: fake-gcs-server, whose module is pinned in testkit/go/gcs. It checks no tokens,
 * ignores ifGenerationMatch of removals, and gives any number of names in one page: {@link GoogleFront} makes up for it.
 */
export interface Gcs extends AsyncDisposable {
  readonly front: GoogleFront;
  createBucket(name: string): Promise<void>;
  /** Writes an object past the store. */
  put(bucket: string, name: string, bytes: Uint8Array): Promise<void>;
  kill(): Promise<void>;
  /** After {@link kill}: what was stored is there again. */
  start(): Promise<void>;
}

/** @returns the reason to skip where it cannot be built; under continuous integration that is an error */
export function gcsProgram(): Promise<{ program: string } | { skip: string }> {
  return goProgram('gcs', 'github.com/fsouza/fake-gcs-server');
}

export async function startGcs(
  program: string,
  options: { readonly host?: string; readonly tls?: boolean; readonly keep?: boolean } = {},
): Promise<Gcs> {
  const { keep = false, ...frontOptions } = options;
  const folder = await mkdtemp(join(tmpdir(), 'asterism-gcs-'));
  await mkdir(join(folder, 'data'));
  const port = await freePort();
  const upstream = `http://127.0.0.1:${port}`;
  let child: ChildProcess | undefined;
  const onExit = () => child?.kill('SIGKILL');
  process.on('exit', onExit);
  const start = async () => {
    const log = await open(join(folder, 'server.log'), 'a');
    const flags = [
      '-scheme=http',
      '-host=127.0.0.1',
      `-port=${port}`,
      '-log-level=warn',
      `-external-url=${upstream}`,
    ];
    const backend = keep
      ? ['-backend=filesystem', `-filesystem-root=${join(folder, 'data')}`]
      : ['-backend=memory', `-data=${join(folder, 'data')}`];
    // It ends with this process even when that is killed.
    child = spawn('setpriv', ['--pdeathsig', 'KILL', program, ...flags, ...backend], {
      cwd: folder,
      stdio: ['ignore', log.fd, log.fd],
    });
    await log.close();
    const limit = performance.now() + START_TIMEOUT_MS;
    for (;;) {
      const answer = await fetch(`${upstream}/storage/v1/b?project=project`).catch(() => undefined);
      await answer?.body?.cancel();
      if (answer?.ok) return;
      if (performance.now() > limit || child.exitCode !== null)
        throw new Error(
          `fake-gcs-server does not come up:\n${await readFile(join(folder, 'server.log'), 'utf8')}`,
        );
      await delay(50);
    }
  };
  const kill = async () => {
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, 'exit');
    child.kill('SIGKILL');
    await ended;
  };
  const post = async (path: string, body: string | Uint8Array) => {
    const answer = await fetch(`${upstream}${path}`, {
      method: 'POST',
      body: body as BodyInit,
      signal: AbortSignal.timeout(START_TIMEOUT_MS),
    });
    const text = await answer.text();
    if (!answer.ok) throw new Error(`POST ${path}: ${answer.status} ${text}`);
  };
  await start();
  const front = await startGoogleFront({
    upstream: () => upstream,
    scope: SCOPE,
    rule: asCloudStorage,
    ...frontOptions,
  });
  return {
    front,
    createBucket: (name) => post('/storage/v1/b?project=project', JSON.stringify({ name })),
    put: (bucket, name, bytes) =>
      post(`/upload/storage/v1/b/${bucket}/o?uploadType=media&name=${encodeURIComponent(name)}`, bytes),
    kill,
    start,
    async [Symbol.asyncDispose]() {
      await front[Symbol.asyncDispose]();
      await kill();
      process.off('exit', onExit);
      await rm(folder, { recursive: true, force: true });
    },
  };
}

async function asCloudStorage({ method, url }: Passing): Promise<number | undefined> {
  if (method === 'GET' && Number(url.searchParams.get('maxResults')) > Number(PAGE))
    url.searchParams.set('maxResults', PAGE);
  const expected = url.searchParams.get('ifGenerationMatch');
  if (method !== 'DELETE' || expected === null) return undefined;
  const answer = await fetch(`${url.origin}${url.pathname}`);
  if (!answer.ok) {
    await answer.body?.cancel();
    return answer.status;
  }
  const { generation } = (await answer.json()) as { generation: string };
  if (generation !== expected) return 412;
  // The server removes this generation or none.
  url.searchParams.set('generation', generation);
  return undefined;
}
