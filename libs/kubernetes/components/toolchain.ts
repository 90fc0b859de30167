import { chmod, mkdtemp, readdir, rm, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { UnreachableError, VerificationError } from '@asterism/errors/errors';
import type { BuildOptions } from './build-go.ts';
import { cacheFolder, moveTreeIntoPlace, removeMatching, sha256OfFile } from './cache.ts';
import { download } from './download.ts';
import { withLock } from './lock.ts';
import { runTethered } from './tether.ts';

/** The one compiler everything is built with, as a Go module: a zip whose hash is pinned here. */
export const TOOLCHAIN_VERSION = 'v0.0.1-go1.26.8';
const TOOLCHAINS: Readonly<Record<string, { readonly version: string; readonly sha256: string }>> = {
  x64: {
    version: `${TOOLCHAIN_VERSION}.linux-amd64`,
    sha256: '30c2b1bf7dcc88d3eb0a1364e47ddd9128edb3110a30e8a0ef61cd5856b31de7',
  },
};
const MAX_ZIP = 256 << 20;
const WORK = '.toolchain-';

/** First entry of GOPROXY that is a URL. */
function moduleProxy(): string {
  const entry = (process.env.GOPROXY ?? '').split(/[,|]/).find((part) => /^https?:/.test(part));
  return (entry ?? 'https://proxy.golang.org').replace(/\/$/, '');
}

/**
 * Path of the pinned `go` command, downloaded and checked on first use.
 * @throws UnreachableError | VerificationError ERR_TOOLCHAIN_HASH
 */
export async function goCommand(options: BuildOptions): Promise<string> {
  const pinned = TOOLCHAINS[process.arch];
  if (pinned === undefined) throw new UnreachableError(`no Go toolchain is pinned for ${process.arch}`);
  const folder = cacheFolder('go', `toolchain-${pinned.version}`);
  const command = join(folder, 'bin/go');
  const there = async () => (await stat(command).catch(() => undefined)) !== undefined;
  if (!(await there())) {
    await withLock(folder, options, async () => {
      if (!(await there())) await install(pinned, folder, options);
    });
  }
  return command;
}

async function install(
  { version, sha256 }: { version: string; sha256: string },
  folder: string,
  { signal, onDetail }: BuildOptions,
): Promise<void> {
  onDetail(`Go toolchain ${version}`);
  const parent = dirname(folder);
  await removeMatching(parent, (name) => name.startsWith(WORK));
  const work = await mkdtemp(join(parent, WORK));
  try {
    const zip = join(work, 'toolchain.zip');
    await download(`${moduleProxy()}/golang.org/toolchain/@v/${version}.zip`, zip, {
      signal,
      maxBytes: MAX_ZIP,
      advice: 'set GOPROXY to a module proxy that can be reached, or HTTPS_PROXY to your proxy',
    });
    const found = await sha256OfFile(zip);
    if (found !== sha256) {
      throw new VerificationError(
        'ERR_TOOLCHAIN_HASH',
        `the Go toolchain has SHA-256 ${found}, expected ${sha256}`,
      );
    }
    await runTethered(['unzip', '-q', zip, '-d', work], { timeoutMs: 300_000, signal });
    const tree = join(work, `golang.org/toolchain@${version}`);
    for (const programs of ['bin', 'pkg/tool/linux_amd64']) {
      for (const name of await readdir(join(tree, programs))) await chmod(join(tree, programs, name), 0o755);
    }
    await moveTreeIntoPlace(tree, folder, signal);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}
