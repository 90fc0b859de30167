import { chmod, mkdir, mkdtemp, readdir, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { UnreachableError, VerificationError } from '@asterism/errors/errors';
import { runChecked } from '@asterism/runtime/program';
import { cacheFolder, sha256OfFile } from './cache.ts';
import { download } from './download.ts';

/** The one compiler everything is built with, as a Go module: a zip whose hash is pinned here. */
export const TOOLCHAIN_VERSION = 'v0.0.1-go1.26.8';
const TOOLCHAINS: Readonly<Record<string, { readonly version: string; readonly sha256: string }>> = {
  x64: {
    version: `${TOOLCHAIN_VERSION}.linux-amd64`,
    sha256: '30c2b1bf7dcc88d3eb0a1364e47ddd9128edb3110a30e8a0ef61cd5856b31de7',
  },
};
const MAX_ZIP = 256 << 20;

/** First entry of GOPROXY that is a URL. */
function moduleProxy(): string {
  const entry = (process.env.GOPROXY ?? '').split(/[,|]/).find((part) => /^https?:/.test(part));
  return (entry ?? 'https://proxy.golang.org').replace(/\/$/, '');
}

/**
 * Path of the pinned `go` command, downloaded and checked on first use.
 * @throws UnreachableError | VerificationError ERR_TOOLCHAIN_HASH
 */
export async function goCommand(options: {
  readonly signal: AbortSignal;
  readonly onDetail: (text: string) => void;
}): Promise<string> {
  const pinned = TOOLCHAINS[process.arch];
  if (pinned === undefined) throw new UnreachableError(`no Go toolchain is pinned for ${process.arch}`);
  const parent = cacheFolder('go');
  const final = join(parent, `toolchain-${pinned.version}`);
  const command = join(final, 'bin/go');
  if (await stat(command).catch(() => undefined)) return command;
  await mkdir(parent, { recursive: true });
  const work = await mkdtemp(join(parent, '.toolchain-'));
  try {
    options.onDetail(`Go toolchain ${pinned.version}`);
    const zip = join(work, 'toolchain.zip');
    await download(`${moduleProxy()}/golang.org/toolchain/@v/${pinned.version}.zip`, zip, {
      signal: options.signal,
      maxBytes: MAX_ZIP,
      advice: 'set GOPROXY to a module proxy that can be reached',
    });
    const found = await sha256OfFile(zip);
    if (found !== pinned.sha256) {
      throw new VerificationError(
        'ERR_TOOLCHAIN_HASH',
        `the Go toolchain has SHA-256 ${found}, expected ${pinned.sha256}`,
      );
    }
    await runChecked('unzip', ['-q', zip, '-d', work], { timeoutMs: 300_000, signal: options.signal });
    const tree = join(work, `golang.org/toolchain@${pinned.version}`);
    for (const folder of ['bin', 'pkg/tool/linux_amd64']) {
      for (const name of await readdir(join(tree, folder))) await chmod(join(tree, folder, name), 0o755);
    }
    await rename(tree, final);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
  return command;
}
