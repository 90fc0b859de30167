import { copyFile, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { AsterismError } from '@asterism/errors/errors';
import { cacheFolder, moveIntoPlace } from './cache.ts';
import type { GoProgram } from './catalogue.ts';
import { withLock } from './lock.ts';
import { networkEnvironment } from './proxy.ts';
import { runTethered } from './tether.ts';
import { goCommand } from './toolchain.ts';

export interface BuildOptions {
  readonly signal: AbortSignal;
  readonly onDetail: (text: string) => void;
}

const BUILD_TIMEOUT_MS = 40 * 60_000;
const DOWNLOAD_TIMEOUT_MS = 10 * 60_000;
/** Wrapper modules that pin what programs are made of. */
export const MODULES = join(import.meta.dirname, 'modules');

/** Start of the name of a folder in which a program is being built; those of killed builds are for others to remove. */
export const BUILD_WORK = '.build-';
/** The user's own Go caches are theirs; ours are shared by builds at the same time, and emptied when there are none. */
export const OWN_GO_CACHE = 'go/build';

/**
 * Builds a program. The wrapper's go.mod and go.sum pin every module (`-mod=readonly`), the toolchain is pinned,
 * `-trimpath` takes paths out and no C compiler takes part: the same catalogue gives the same bytes on every machine.
 *
 * @param folder where the program goes, under its name, when it is whole
 * @throws ProgramError ERR_PROGRAM_FAILED with the end of the compiler's output
 */
export async function buildProgram(program: GoProgram, folder: string, options: BuildOptions): Promise<void> {
  await mkdir(folder, { recursive: true });
  const go = await goCommand(options);
  await withLock(cacheFolder(OWN_GO_CACHE), { ...options, shared: true }, async () => {
    options.onDetail(`building ${program.name}`);
    const started = Date.now();
    const work = await mkdtemp(join(folder, BUILD_WORK));
    try {
      await moveIntoPlace(await compile(program, go, work, options), join(folder, program.name));
    } finally {
      await rm(work, { recursive: true, force: true });
    }
    options.onDetail(`built ${program.name} in ${Math.round((Date.now() - started) / 1000)} s`);
  });
}

/** @returns path of the program, below `work` */
async function compile(program: GoProgram, go: string, work: string, options: BuildOptions): Promise<string> {
  const env = await environment(work);
  const cwd = await patchedModule(program, go, work, env, options);
  const built = join(work, program.name);
  const ldflags = ['-s', '-w', ...(program.ldflags ?? [])].join(' ');
  const build = ['build', '-trimpath', '-buildvcs=false', '-ldflags', ldflags, '-o', built, program.package];
  // Dependencies are downloaded and compiled beside everything else: lowest priority, so that the machine stays usable.
  await runTethered(['nice', '-n', '19', go, ...build], {
    timeoutMs: BUILD_TIMEOUT_MS,
    signal: options.signal,
    cwd,
    env,
  });
  return built;
}

/**
 * Makes a copy of the wrapper module whose patched dependency lies beside it: the sources of the pinned version, read
 * from the module cache after their hash was checked, with some files replaced.
 * @returns the folder; that of the wrapper itself where nothing is patched
 */
async function patchedModule(
  program: GoProgram,
  go: string,
  work: string,
  env: Readonly<Record<string, string>>,
  { signal }: BuildOptions,
): Promise<string> {
  const wrapper = join(MODULES, program.module);
  if (program.patch === undefined) return wrapper;
  const download = ['mod', 'download', '-json', program.patch.module];
  const answer = await runTethered([go, ...download], {
    timeoutMs: DOWNLOAD_TIMEOUT_MS,
    signal,
    cwd: wrapper,
    env,
  });
  const { Dir: source } = JSON.parse(answer) as { Dir?: string };
  if (source === undefined)
    throw new AsterismError('ERR_MODULE', `go mod download ${program.patch.module} gave no folder`);
  const module = join(work, 'module');
  await mkdir(module);
  await runTethered(['cp', '-r', '--no-preserve=mode', source, join(module, 'patched')], {
    timeoutMs: 60_000,
    signal,
  });
  for (const [path, ours] of Object.entries(program.patch.files)) {
    const to = join(module, 'patched', path);
    // Of another version with other files the patch would be another program.
    await rm(to);
    if (ours !== '') await copyFile(join(wrapper, ours), to);
  }
  await copyFile(join(wrapper, 'go.sum'), join(module, 'go.sum'));
  const pinned = await readFile(join(wrapper, 'go.mod'), 'utf8');
  await writeFile(join(module, 'go.mod'), `${pinned}\nreplace ${program.patch.module} => ./patched\n`);
  return module;
}

/** Nothing of the user's own Go settings takes part, but for where things come from and are cached. */
async function environment(work: string): Promise<Record<string, string>> {
  const own = process.env;
  const temporary = join(work, 'tmp');
  await mkdir(temporary);
  return {
    ...networkEnvironment(),
    PATH: '/usr/local/bin:/usr/bin:/bin',
    HOME: own.HOME ?? '/root',
    LC_ALL: 'C',
    GOENV: 'off',
    GOTOOLCHAIN: 'local',
    // A writable cache of modules can be emptied by its owner.
    GOFLAGS: '-mod=readonly -modcacherw',
    GOWORK: 'off',
    // go.sum has the hash of every module, so the public database has nothing to add.
    GONOSUMDB: '*',
    GOAMD64: 'v1',
    CGO_ENABLED: '0',
    GOCACHE: own.GOCACHE ?? cacheFolder(OWN_GO_CACHE),
    GOTMPDIR: temporary,
    GOMODCACHE: own.GOMODCACHE ?? cacheFolder('go/mod'),
    GOPROXY: own.GOPROXY ?? 'https://proxy.golang.org,direct',
  };
}
