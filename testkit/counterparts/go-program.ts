import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdir, mkdtemp, readdir, readFile, rename, rm, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { UnreachableError } from '@asterism/errors/errors';
import { cacheFolder } from '@asterism/kubernetes/components/cache';
import { withLock } from '@asterism/kubernetes/components/lock';
import { goCommand, TOOLCHAIN_VERSION } from '@asterism/kubernetes/components/toolchain';

const run = promisify(execFile);
const BUILD_TIMEOUT_MS = 15 * 60_000;

/**
 * Builds a package in the module testkit/go/<name>, whose go.sum pins everything, into the user's cache: once for each
 * state of the module.
 *
 * @param what `.`, or a package that the module requires as a tool
 * @returns the program, or the reason to skip: the modules cannot be reached. Under continuous integration (CI=true)
 *   that is an error.
 */
export async function goProgram(name: string, what: string): Promise<{ program: string } | { skip: string }> {
  const source = join(import.meta.dirname, '../go', name);
  const folder = cacheFolder('counterparts', name, await stateOf(source));
  const program = join(folder, name);
  const there = async () => (await stat(program).catch(() => undefined)) !== undefined;
  try {
    const options = { signal: AbortSignal.timeout(BUILD_TIMEOUT_MS), onDetail: () => {} };
    if (!(await there())) {
      await withLock(folder, options, async () => {
        if (!(await there())) await build(await goCommand(options), source, what, folder, name);
      });
    }
    return { program };
  } catch (error) {
    const unreachable =
      error instanceof UnreachableError ||
      /dial tcp|no such host|i\/o timeout|connection refused/.test((error as Error).message);
    if (!unreachable || process.env.CI !== undefined) throw error;
    return {
      skip: `NOT TESTED against ${name}: it cannot be built: ${(error as Error).message.slice(0, 200)}`,
    };
  }
}

async function build(go: string, source: string, what: string, folder: string, name: string): Promise<void> {
  await mkdir(dirname(folder), { recursive: true });
  const work = await mkdtemp(join(dirname(folder), '.build-'));
  try {
    await run(go, ['build', '-mod=readonly', '-trimpath', '-o', join(work, name), what], {
      cwd: source,
      env: { ...process.env, GOTOOLCHAIN: 'local', CGO_ENABLED: '0' },
      timeout: BUILD_TIMEOUT_MS,
    });
    await rename(work, folder);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

async function stateOf(source: string): Promise<string> {
  const hash = createHash('sha256').update(TOOLCHAIN_VERSION);
  for (const file of (await readdir(source)).sort())
    hash.update(file).update(await readFile(join(source, file)));
  return hash.digest('hex').slice(0, 16);
}
