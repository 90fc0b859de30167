import { copyFile, mkdir, mkdtemp, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { AsterismError } from '@asterism/errors/errors';
import { runChecked } from '@asterism/runtime/program';
import { cacheFolder } from './cache.ts';
import type { GoProgram } from './catalogue.ts';
import { goCommand } from './toolchain.ts';

export interface BuildOptions {
  readonly signal: AbortSignal;
  readonly onDetail: (text: string) => void;
}

const BUILD_TIMEOUT_MS = 40 * 60_000;
const DOWNLOAD_TIMEOUT_MS = 10 * 60_000;
/** Wrapper modules that pin what programs are made of. */
export const MODULES = join(import.meta.dirname, 'modules');

/**
 * Builds a program, unless it is there. The wrapper's go.mod and go.sum pin every module (`-mod=readonly`), the
 * toolchain is pinned, `-trimpath` takes paths out and no C compiler takes part: the same catalogue gives the same
 * bytes on every machine.
 *
 * @param folder where the program goes, under its name
 * @throws ProgramError ERR_PROGRAM_FAILED with the end of the compiler's output
 */
export async function buildProgram(program: GoProgram, folder: string, options: BuildOptions): Promise<void> {
  const target = join(folder, program.name);
  if (await stat(target).catch(() => undefined)) return;
  await mkdir(folder, { recursive: true });
  const go = await goCommand(options);
  options.onDetail(`building ${program.name}`);
  const started = Date.now();
  const temporary = join(folder, `.${program.name}.part`);
  const env = environment();
  const patched = await patchedModule(program, go, folder, env, options);
  const ldflags = ['-s', '-w', ...(program.ldflags ?? [])].join(' ');
  const build = [
    'build',
    '-trimpath',
    '-buildvcs=false',
    '-ldflags',
    ldflags,
    '-o',
    temporary,
    program.package,
  ];
  try {
    // Dependencies are downloaded and compiled beside everything else: lowest priority, so that the machine stays usable.
    await runChecked('nice', ['-n', '19', go, ...build], {
      timeoutMs: BUILD_TIMEOUT_MS,
      signal: options.signal,
      cwd: patched ?? join(MODULES, program.module),
      env,
    });
  } finally {
    if (patched !== undefined) await rm(patched, { recursive: true, force: true });
  }
  await rename(temporary, target);
  options.onDetail(`built ${program.name} in ${Math.round((Date.now() - started) / 1000)} s`);
}

/**
 * Makes a copy of the wrapper module whose patched dependency lies beside it: the sources of the pinned version, read
 * from the module cache after their hash was checked, with some files replaced.
 * @returns the folder, to be removed; undefined where nothing is patched
 */
async function patchedModule(
  program: GoProgram,
  go: string,
  folder: string,
  env: Readonly<Record<string, string>>,
  { signal }: BuildOptions,
): Promise<string | undefined> {
  if (program.patch === undefined) return undefined;
  const wrapper = join(MODULES, program.module);
  const download = ['mod', 'download', '-json', program.patch.module];
  const answer = await runChecked(go, download, {
    timeoutMs: DOWNLOAD_TIMEOUT_MS,
    signal,
    cwd: wrapper,
    env,
  });
  const { Dir: source } = JSON.parse(answer) as { Dir?: string };
  if (source === undefined)
    throw new AsterismError('ERR_MODULE', `go mod download ${program.patch.module} gave no folder`);
  const work = await mkdtemp(join(folder, '.patched-'));
  await runChecked('cp', ['-r', '--no-preserve=mode', source, join(work, 'patched')], {
    timeoutMs: 60_000,
    signal,
  });
  for (const [path, ours] of Object.entries(program.patch.files)) {
    const to = join(work, 'patched', path);
    // Of another version with other files the patch would be another program.
    await rm(to);
    if (ours !== '') await copyFile(join(wrapper, ours), to);
  }
  await copyFile(join(wrapper, 'go.sum'), join(work, 'go.sum'));
  const pinned = await readFile(join(wrapper, 'go.mod'), 'utf8');
  await writeFile(join(work, 'go.mod'), `${pinned}\nreplace ${program.patch.module} => ./patched\n`);
  return work;
}

/** Nothing of the user's own Go settings takes part, but for where things come from and are cached. */
function environment(): Record<string, string> {
  const own = process.env;
  return {
    PATH: '/usr/local/bin:/usr/bin:/bin',
    HOME: own.HOME ?? '/root',
    LC_ALL: 'C',
    GOENV: 'off',
    GOTOOLCHAIN: 'local',
    GOFLAGS: '-mod=readonly',
    GOWORK: 'off',
    // go.sum has the hash of every module, so the public database has nothing to add.
    GONOSUMDB: '*',
    GOAMD64: 'v1',
    CGO_ENABLED: '0',
    GOCACHE: own.GOCACHE ?? cacheFolder('go/build'),
    GOMODCACHE: own.GOMODCACHE ?? cacheFolder('go/mod'),
    GOPROXY: own.GOPROXY ?? 'https://proxy.golang.org,direct',
    ...(own.SSL_CERT_FILE && { SSL_CERT_FILE: own.SSL_CERT_FILE }),
    ...(own.HTTPS_PROXY && { HTTPS_PROXY: own.HTTPS_PROXY }),
  };
}
