import { join } from 'node:path';
import { build } from 'esbuild';

export const ROOT = join(import.meta.dirname, '..');

/** The Node that package-lock.json pins: the one that nodes and containers get, whichever runs this. */
export const PINNED_NODE = join(ROOT, `node_modules/node-linux-${process.arch}/bin/node`);

/**
 * Bundles a program and all it imports into one ESM file for the pinned Node. The same sources give the same bytes.
 * @param entry path below the repository's root
 */
export async function bundle(entry: string, to: string): Promise<void> {
  await build({
    absWorkingDir: ROOT,
    entryPoints: [entry],
    outfile: to,
    bundle: true,
    platform: 'node',
    target: 'node24',
    format: 'esm',
    legalComments: 'inline',
    logLevel: 'error',
    // CommonJS packages call require for Node's own modules.
    banner: {
      js: "import { createRequire as $createRequire } from 'node:module'; const require = $createRequire(import.meta.url);",
    },
  });
}
