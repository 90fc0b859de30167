import { mkdir, rename, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { runChecked } from '@asterism/runtime/program';
import { cacheFolder } from './cache.ts';
import type { GoProgram } from './catalogue.ts';
import { goCommand } from './toolchain.ts';

export interface BuildOptions {
  readonly signal: AbortSignal;
  readonly onDetail: (text: string) => void;
}

const BUILD_TIMEOUT_MS = 40 * 60_000;
/** Wrapper modules that pin what programs are made of. */
export const MODULES = join(import.meta.dirname, 'modules');

/**
 * Builds a program, unless it is there. The wrapper's go.mod and go.sum pin every module (`-mod=readonly`), the
 * toolchain is pinned, `-trimpath` takes paths out: the same catalogue gives the same bytes, but for C parts.
 *
 * @param folder where the program goes, under its name
 */
export async function buildProgram(program: GoProgram, folder: string, options: BuildOptions): Promise<void> {
  const target = join(folder, program.name);
  if (await stat(target).catch(() => undefined)) return;
  await mkdir(folder, { recursive: true });
  const go = await goCommand(options);
  options.onDetail(`building ${program.name}`);
  const started = Date.now();
  const ldflags = [
    '-s',
    '-w',
    ...(program.ldflags ?? []),
    ...(program.cgo ? ['-linkmode external', '-extldflags -static'] : []),
  ];
  const temporary = join(folder, `.${program.name}.part`);
  // Dependencies are downloaded and compiled beside everything else: lowest priority, so that the machine stays usable.
  await runChecked(
    'nice',
    [
      '-n',
      '19',
      go,
      'build',
      '-trimpath',
      '-buildvcs=false',
      ...(program.tags ? ['-tags', program.tags.join(',')] : []),
      '-ldflags',
      ldflags.join(' '),
      '-o',
      temporary,
      program.package,
    ],
    {
      timeoutMs: BUILD_TIMEOUT_MS,
      signal: options.signal,
      cwd: join(MODULES, program.module),
      env: environment(program),
    },
  );
  await rename(temporary, target);
  options.onDetail(`built ${program.name} in ${Math.round((Date.now() - started) / 1000)} s`);
}

function environment(program: GoProgram): Record<string, string> {
  const own = process.env;
  return {
    PATH: '/usr/local/bin:/usr/bin:/bin',
    HOME: own.HOME ?? '/root',
    LC_ALL: 'C',
    GOTOOLCHAIN: 'local',
    GOFLAGS: '-mod=readonly',
    GOWORK: 'off',
    // go.sum has the hash of every module, so the public database has nothing to add.
    GONOSUMDB: '*',
    GOAMD64: 'v1',
    CGO_ENABLED: program.cgo ? '1' : '0',
    GOCACHE: own.GOCACHE ?? cacheFolder('go/build'),
    GOMODCACHE: own.GOMODCACHE ?? cacheFolder('go/mod'),
    GOPROXY: own.GOPROXY ?? 'https://proxy.golang.org,direct',
    ...(own.SSL_CERT_FILE && { SSL_CERT_FILE: own.SSL_CERT_FILE }),
    ...(own.HTTPS_PROXY && { HTTPS_PROXY: own.HTTPS_PROXY }),
  };
}
