import { createHash, randomUUID } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { chmod, lstat, mkdir, open, readdir, rename, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { AsterismError, UnreachableError, VerificationError } from '@asterism/errors/errors';
import { extractTarGz } from './tar.ts';

/** A file of a Kubernetes version: proto/components.proto. */
export interface Component {
  readonly url: string;
  /** "sha256:" and 64 hexadecimal digits. */
  readonly hash: string;
  readonly installPath: string;
  /** The file is a .tar.gz and installPath the folder that it is unpacked into. */
  readonly extract: boolean;
}

export interface InstallOptions {
  /** Folders below which installPath must lie. */
  readonly allowedRoots: readonly string[];
  /** Bytes of one download. Default 1 GiB. */
  readonly maxBytes?: number;
  /** Milliseconds for one component, all tries together. Default 10 minutes. */
  readonly timeoutMs?: number;
  /** Milliseconds without a byte after which a try is given up. Default 30,000. */
  readonly idleMs?: number;
  /** Milliseconds before the second try; doubled up to 10 s. Default 500. */
  readonly backoffMs?: number;
  readonly signal?: AbortSignal;
  readonly log?: (line: string) => void;
}

/** Mode of an installed program: nobody needs to write to it. */
const PROGRAM_MODE = 0o544;

/**
 * Downloads one component, checks its SHA-256 and only then puts it in its place by rename: whatever fails or
 * is killed, at installPath lies either what was there before or the whole, checked file. A file that already
 * has the right hash is kept.
 *
 * @throws VerificationError ERR_COMPONENT_HASH the file is not the one that was asked for; not tried again
 * @throws UnreachableError no source answered in time
 * @throws AsterismError ERR_COMPONENT_REQUEST, ERR_COMPONENT_SIZE
 */
export async function installComponent(component: Component, options: InstallOptions): Promise<void> {
  checkComponent(component, options.allowedRoots);
  const { installPath } = component;
  if (!component.extract && (await hashOfFile(installPath)) === component.hash) {
    await chmod(installPath, PROGRAM_MODE);
    return;
  }
  const folder = dirname(installPath);
  await mkdir(folder, { recursive: true, mode: 0o755 });
  await sweep(folder);
  const temporary = `${folder}/${TEMPORARY}${randomUUID()}`;
  const download = `${temporary}.download`;
  try {
    await downloadWithRetries(component, download, options);
    if (component.extract) {
      const unpacked = `${temporary}.unpacked`;
      await mkdir(unpacked, { mode: 0o755 });
      await extractTarGz(download, unpacked, { maxBytes: options.maxBytes ?? GIB, maxEntries: 10_000 });
      await moveInto(unpacked, installPath);
    } else {
      await chmod(download, PROGRAM_MODE);
      await rename(download, installPath);
    }
  } finally {
    await sweep(folder);
  }
}

/** Refuses a component that would be written outside the folders that belong to Kubernetes. */
export function checkComponent(component: Component, allowedRoots: readonly string[]): void {
  const bad = (why: string): never => {
    throw new AsterismError('ERR_COMPONENT_REQUEST', `component ${component.url.slice(0, 200)}: ${why}`);
  };
  if (!/^sha256:[0-9a-f]{64}$/.test(component.hash))
    bad('the hash is not "sha256:" and 64 lower-case hex digits');
  const protocol = URL.parse(component.url)?.protocol ?? '';
  if (!['https:', 'http:', 'file:'].includes(protocol)) bad(`the URL scheme "${protocol}" is not supported`);
  const path = component.installPath;
  const elements = path.split('/').slice(1);
  if (
    !path.startsWith('/') ||
    elements.some((e) => e === '' || e === '.' || e === '..') ||
    path.includes('\0')
  ) {
    bad('the install path is not absolute and plain');
  }
  // An archive may be unpacked into a root itself, a file must not replace it.
  if (!allowedRoots.some((root) => path.startsWith(`${root}/`) || (component.extract && path === root))) {
    bad(`the install path ${path} lies outside ${allowedRoots.join(', ')}`);
  }
}

const GIB = 1 << 30;
const TEMPORARY = '.asterism-install-';

async function downloadWithRetries(component: Component, to: string, options: InstallOptions): Promise<void> {
  const deadline = AbortSignal.timeout(options.timeoutMs ?? 600_000);
  const signal = options.signal === undefined ? deadline : AbortSignal.any([deadline, options.signal]);
  let wait = options.backoffMs ?? 500;
  for (let attempt = 1; ; attempt++) {
    try {
      return await downloadOnce(component, to, options, signal);
    } catch (cause) {
      await rm(to, { force: true });
      if (cause instanceof AsterismError) throw cause;
      const reason = cause instanceof Error ? cause.message : String(cause);
      if (signal.aborted) {
        throw new UnreachableError(`${component.url} could not be downloaded (${attempt} tries): ${reason}`, {
          cause,
        });
      }
      options.log?.(`${component.url}: try ${attempt} failed: ${reason}`);
    }
    try {
      await sleep(wait, undefined, { signal });
    } catch (cause) {
      throw new UnreachableError(`${component.url} could not be downloaded in time (${attempt} tries)`, {
        cause,
      });
    }
    wait = Math.min(wait * 2, 10_000);
  }
}

async function downloadOnce(
  component: Component,
  to: string,
  options: InstallOptions,
  signal: AbortSignal,
): Promise<void> {
  const maxBytes = options.maxBytes ?? GIB;
  const hash = createHash('sha256');
  let bytes = 0;
  const idle = new AbortController();
  const idleMs = options.idleMs ?? 30_000;
  const timer = setTimeout(() => idle.abort(new Error(`no byte came for ${idleMs} ms`)), idleMs);
  const file = await open(to, 'wx', 0o600);
  try {
    for await (const chunk of await source(component.url, maxBytes, AbortSignal.any([signal, idle.signal]))) {
      timer.refresh();
      bytes += chunk.length;
      if (bytes > maxBytes) throw tooLarge(component.url, maxBytes);
      hash.update(chunk);
      await file.writeFile(chunk);
    }
    await file.sync();
  } finally {
    clearTimeout(timer);
    await file.close();
  }
  const found = `sha256:${hash.digest('hex')}`;
  if (found !== component.hash) {
    throw new VerificationError(
      'ERR_COMPONENT_HASH',
      `${component.url} has ${found}, not ${component.hash}: nothing of it was installed. ` +
        'Check where the file comes from before you try again.',
    );
  }
}

function tooLarge(url: string, maxBytes: number): AsterismError {
  return new AsterismError('ERR_COMPONENT_SIZE', `${url} is larger than ${maxBytes} bytes`);
}

async function source(
  url: string,
  maxBytes: number,
  signal: AbortSignal,
): Promise<AsyncIterable<Uint8Array>> {
  if (url.startsWith('file:')) return createReadStream(fileURLToPath(url), { signal });
  const response = await fetch(url, { signal, redirect: 'follow' });
  if (!response.ok || response.body === null) {
    await response.body?.cancel();
    throw new Error(`HTTP status ${response.status}`);
  }
  if (Number(response.headers.get('content-length') ?? 0) > maxBytes) {
    await response.body.cancel();
    throw tooLarge(url, maxBytes);
  }
  return response.body;
}

/** "sha256:<hex>" of a regular file; undefined where there is none. */
async function hashOfFile(path: string): Promise<string | undefined> {
  const info = await lstat(path).catch(() => undefined);
  if (!info?.isFile()) return undefined;
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(path)) hash.update(chunk as Buffer);
  return `sha256:${hash.digest('hex')}`;
}

/** Renames a tree into place; where the folder is there already, its entries one by one. */
async function moveInto(from: string, to: string): Promise<void> {
  const existing = await lstat(to).catch(() => undefined);
  if (existing === undefined) return rename(from, to);
  if (!existing.isDirectory()) throw new AsterismError('ERR_COMPONENT_REQUEST', `${to} is not a folder`);
  for (const entry of await readdir(from, { withFileTypes: true })) {
    if (entry.isDirectory()) await moveInto(`${from}/${entry.name}`, `${to}/${entry.name}`);
    else await rename(`${from}/${entry.name}`, `${to}/${entry.name}`);
  }
}

/** Removes what an earlier, killed installation left in a folder. */
async function sweep(folder: string): Promise<void> {
  for (const name of await readdir(folder)) {
    if (name.startsWith(TEMPORARY)) await rm(`${folder}/${name}`, { recursive: true, force: true });
  }
}
