import { chmod, copyFile, mkdir, mkdtemp, rm } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { UnreachableError, VerificationError } from '@asterism/errors/errors';
import { BUILD_WORK, type BuildOptions, buildProgram } from './build-go.ts';
import { moveIntoPlace, sha256OfFile } from './cache.ts';
import type { GoProgram } from './catalogue.ts';
import { download } from './download.ts';

const MAX_PROGRAM_BYTES = 512 << 20;

/** Which bytes may be taken for a program, and from where. */
export interface ProgramSource {
  /** Hex SHA-256 of what building gives. Undefined: taken as built. */
  readonly pinned: string | undefined;
  /** What the program's own project publishes; taken instead of building. */
  readonly official?: OfficialFile;
}

export interface OfficialFile {
  readonly url: string;
  /** Hex. */
  readonly sha256: string;
  /** Whether the program may be built where the address does not answer. */
  readonly orBuild: boolean;
}

/**
 * Brings a program into a folder, in place of what is there: from the mirror that `ASTERISM_COMPONENTS_MIRROR` names (a folder or an http(s) URL
 * with files named by their SHA-256), from its project where that is asked for, else built. Where a hash is pinned,
 * only these bytes are taken, whoever made them.
 *
 * @returns whether it was built
 * @throws VerificationError ERR_COMPONENT_HASH
 * @throws UnreachableError the official address does not answer and the program may not be built
 */
export async function provideProgram(
  program: GoProgram,
  { pinned, official }: ProgramSource,
  folder: string,
  options: BuildOptions,
): Promise<boolean> {
  const target = join(folder, program.name);
  await mkdir(folder, { recursive: true });
  const mirror = process.env.ASTERISM_COMPONENTS_MIRROR;
  for (const wanted of [official?.sha256, ...(official === undefined || official.orBuild ? [pinned] : [])]) {
    if (mirror && wanted !== undefined && (await fromMirror(mirror, wanted, target, options))) return false;
  }
  if (official !== undefined && (await fromProject(official, target, options))) return false;
  // Built under another name, so that nothing is taken for the program before its hash was compared.
  const fresh = await mkdtemp(join(folder, BUILD_WORK));
  try {
    await buildProgram(program, fresh, options);
    await accept(join(fresh, program.name), pinned, target);
  } finally {
    await rm(fresh, { recursive: true, force: true });
  }
  return true;
}

async function fromProject(
  { url, sha256, orBuild }: OfficialFile,
  target: string,
  { signal, onDetail }: BuildOptions,
): Promise<boolean> {
  onDetail(`downloading ${url}`);
  const fresh = join(dirname(target), `.${basename(target)}.download`);
  const advice = orBuild ? 'it is built instead' : 'or build it: asterism components build';
  try {
    await download(url, fresh, { signal, maxBytes: MAX_PROGRAM_BYTES, advice });
  } catch (error) {
    if (!orBuild || !(error instanceof UnreachableError)) throw error;
    onDetail(error.message);
    return false;
  }
  await accept(fresh, sha256, target);
  return true;
}

async function fromMirror(
  mirror: string,
  wanted: string,
  target: string,
  { signal, onDetail }: BuildOptions,
): Promise<boolean> {
  const temporary = join(dirname(target), `.${basename(target)}.mirror`);
  try {
    if (/^https?:/.test(mirror)) {
      const url = `${mirror.replace(/\/$/, '')}/${wanted}`;
      await download(url, temporary, { signal, maxBytes: MAX_PROGRAM_BYTES, advice: 'it is built instead' });
    } else {
      await copyFile(join(mirror, wanted), temporary);
    }
  } catch (error) {
    await rm(temporary, { force: true });
    const missing = (error as NodeJS.ErrnoException).code === 'ENOENT' || error instanceof UnreachableError;
    if (!missing) throw error;
    onDetail(`not in the mirror: ${error instanceof Error ? error.message : String(error)}`);
    return false;
  }
  await accept(temporary, wanted, target);
  return true;
}

/** Moves a file to its place if it is what the catalogue says. What is wrong is removed. */
async function accept(from: string, wanted: string | undefined, target: string): Promise<void> {
  const found = await sha256OfFile(from);
  if (wanted !== undefined && found !== wanted) {
    await rm(from, { force: true });
    throw new VerificationError(
      'ERR_COMPONENT_HASH',
      `${target} would be sha256:${found}, but the catalogue pins sha256:${wanted}: these are not the bytes that this release was tested with`,
    );
  }
  await chmod(from, 0o755);
  await moveIntoPlace(from, target);
}
