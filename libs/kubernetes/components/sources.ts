import { createWriteStream } from 'node:fs';
import { chmod, copyFile, mkdir, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type { ReadableStream as WebReadableStream } from 'node:stream/web';
import { VerificationError } from '@asterism/errors/errors';
import { type BuildOptions, buildProgram } from './build-go.ts';
import { sha256OfFile } from './cache.ts';
import type { GoProgram } from './catalogue.ts';

const MIRROR_TIMEOUT_MS = 600_000;

/**
 * Brings a program into a folder: from the mirror that `ASTERISM_COMPONENTS_MIRROR` names (a folder or an http(s) URL
 * with files named by their SHA-256), else built. Where the catalogue pins its hash, only these bytes are taken,
 * whoever made them.
 *
 * @param pinned hex SHA-256
 * @throws VerificationError ERR_COMPONENT_HASH
 */
export async function provideProgram(
  program: GoProgram,
  pinned: string | undefined,
  folder: string,
  options: BuildOptions,
): Promise<void> {
  const target = join(folder, program.name);
  if (await stat(target).catch(() => undefined)) return;
  const mirror = process.env.ASTERISM_COMPONENTS_MIRROR;
  if (mirror !== undefined && pinned !== undefined && (await fromMirror(mirror, pinned, target, options)))
    return;
  // Built under another name, so that nothing is taken for the program before its hash was compared.
  const fresh = join(folder, '.fresh');
  await rm(join(fresh, program.name), { force: true });
  await buildProgram(program, fresh, options);
  await accept(join(fresh, program.name), pinned, target);
}

async function fromMirror(
  mirror: string,
  pinned: string,
  target: string,
  { signal, onDetail }: BuildOptions,
): Promise<boolean> {
  const temporary = `${target}.mirror`;
  await mkdir(join(target, '..'), { recursive: true });
  try {
    if (/^https?:/.test(mirror)) {
      const response = await fetch(`${mirror.replace(/\/$/, '')}/${pinned}`, {
        signal: AbortSignal.any([signal, AbortSignal.timeout(MIRROR_TIMEOUT_MS)]),
      });
      if (!response.ok || response.body === null) throw new Error(`HTTP status ${response.status}`);
      await pipeline(
        Readable.fromWeb(response.body as WebReadableStream<Uint8Array>),
        createWriteStream(temporary),
      );
    } else {
      await copyFile(join(mirror, pinned), temporary);
    }
    await accept(temporary, pinned, target);
    return true;
  } catch (error) {
    signal.throwIfAborted();
    await rm(temporary, { force: true });
    if (error instanceof VerificationError) throw error;
    onDetail(
      `${target.split('/').at(-1)} is not in the mirror (${error instanceof Error ? error.message : String(error)})`,
    );
    return false;
  }
}

/** Moves a file to its place if it is what the catalogue says. What is wrong is removed. */
async function accept(from: string, pinned: string | undefined, target: string): Promise<void> {
  const found = await sha256OfFile(from);
  if (pinned !== undefined && found !== pinned) {
    await rm(from, { force: true });
    throw new VerificationError(
      'ERR_COMPONENT_HASH',
      `${target} would be sha256:${found}, but the catalogue pins sha256:${pinned}: these are not the bytes that this release was tested with`,
    );
  }
  await chmod(from, 0o755);
  await rename(from, target);
}
