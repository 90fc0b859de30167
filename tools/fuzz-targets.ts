import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import type { FuzzTarget } from '@asterism/testkit/fuzz';
import { sourceFiles } from './imports.ts';

/** Loads every `*.fuzz.ts` whose path has one of the given parts (all of them where none is given). */
export async function fuzzTargets(
  root: string,
  parts: readonly string[] = [],
): Promise<{ file: string; target: FuzzTarget }[]> {
  const files = sourceFiles(root)
    .filter((file) => file.endsWith('.fuzz.ts'))
    .filter((file) => parts.length === 0 || parts.some((part) => file.includes(part)));
  return Promise.all(
    files.map(async (file) => {
      const loaded: Partial<FuzzTarget> = await import(pathToFileURL(join(root, file)).href);
      const { name, seeds, run } = loaded;
      if (name === undefined || seeds === undefined || run === undefined) {
        throw new Error(`${file} exports no name, seeds and run`);
      }
      return { file, target: { name, seeds, run } };
    }),
  );
}
