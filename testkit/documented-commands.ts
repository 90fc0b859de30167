import { readFile } from 'node:fs/promises';
import { join } from 'node:path';

/** The `sh` blocks of a page of docs/, in their order: a test that runs them follows the page literally. */
export async function documentedCommands(page: string): Promise<string[]> {
  const text = await readFile(join(import.meta.dirname, '../docs', page), 'utf8');
  return [...text.matchAll(/^```sh\n([\s\S]*?)^```$/gm)].map(([, block]) => block!);
}
