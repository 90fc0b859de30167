import { createReadStream } from 'node:fs';
import { chmod, mkdir, open, symlink } from 'node:fs/promises';
import { dirname, posix } from 'node:path';
import { createGunzip } from 'node:zlib';
import { ParseError } from '@asterism/errors/errors';

export interface TarLimits {
  /** Bytes of all files together after decompression. */
  readonly maxBytes: number;
  readonly maxEntries: number;
}

const BLOCK = 512;
const MAX_NAME = 4096;

/**
 * Whether an entry may be unpacked: no element of its path is "..". An absolute path is taken as one below the
 * target. Even a ".." that would stay inside is refused, so that what is judged is what is written.
 * @throws ParseError
 */
export function checkTarPath(name: string): void {
  if (name === '' || name.length > MAX_NAME || name.includes('\0'))
    throw new ParseError('a bad path in the archive');
  if (name.split('/').includes('..'))
    throw new ParseError(`the archive holds the path "${name}", which climbs up`);
}

/**
 * Unpacks a .tar.gz into a folder that must be new and private to the caller: nothing else may write there
 * while this runs. Folders, regular files and symbolic links that stay inside; every other kind is refused.
 * Owners and times are not restored; of the mode only whether the owner may execute counts (0755 or 0644).
 *
 * @throws ParseError the archive is malformed, too large or tries to write elsewhere
 */
export async function extractTarGz(archive: string, target: string, limits: TarLimits): Promise<void> {
  const source = createReadStream(archive).on('error', (error) => gunzip.destroy(error));
  const gunzip = createGunzip();
  const blocks = new BlockReader(source.pipe(gunzip));
  let entries = 0;
  let bytes = 0;
  let longName: string | undefined;
  let longLink: string | undefined;
  const links: { path: string; to: string }[] = [];
  try {
    while (true) {
      const header = await blocks.read(BLOCK);
      if (header === undefined || header.every((byte) => byte === 0)) break;
      if (++entries > limits.maxEntries)
        throw new ParseError(`the archive has more than ${limits.maxEntries} entries`);
      const entry = parseHeader(header);
      bytes += entry.size;
      if (bytes > limits.maxBytes)
        throw new ParseError(`the archive unpacks to more than ${limits.maxBytes} bytes`);
      if ('xgLK'.includes(entry.type)) {
        if (entry.size > 1 << 16) throw new ParseError('an extended header of the archive is too large');
        const data = await blocks.readPadded(entry.size);
        if (entry.type === 'L') longName = trimNul(data);
        else if (entry.type === 'K') longLink = trimNul(data);
        else if (entry.type === 'x') {
          const fields = parsePax(data);
          longName = fields.get('path') ?? longName;
          longLink = fields.get('linkpath') ?? longLink;
        }
        continue;
      }
      const name = longName ?? entry.name;
      const link = longLink ?? entry.link;
      longName = undefined;
      longLink = undefined;
      checkTarPath(name);
      const relative = posix.normalize(`/${name}`).slice(1).replace(/\/$/, '');
      const path = `${target}/${relative}`;
      switch (entry.type) {
        case '5':
          await mkdir(path, { recursive: true, mode: 0o755 });
          break;
        case '0': {
          if (relative === '') throw new ParseError('the archive holds a file without a name');
          await mkdir(dirname(path), { recursive: true, mode: 0o755 });
          const mode = (entry.mode & 0o100) === 0 ? 0o644 : 0o755;
          // 'wx': a second entry of the same name is refused, it could otherwise write through a link.
          const file = await open(path, 'wx', mode);
          try {
            for (let left = entry.size; left > 0; ) {
              const part = await blocks.readSome(left);
              await file.writeFile(part);
              left -= part.length;
            }
            await file.sync();
          } finally {
            await file.close();
          }
          await chmod(path, mode);
          await blocks.skipPadding(entry.size);
          break;
        }
        case '2': {
          checkTarPath(link);
          if (posix.isAbsolute(link)) throw new ParseError(`the archive links "${name}" to an absolute path`);
          links.push({ path, to: link });
          break;
        }
        default:
          throw new ParseError(
            `the archive holds "${name}" of the kind "${entry.type}"; files, folders and links only`,
          );
      }
    }
    // Links come last, so that no file of the archive can be written through one.
    for (const { path, to } of links) {
      await mkdir(dirname(path), { recursive: true, mode: 0o755 });
      await symlink(to, path);
    }
    if (entries === 0) throw new ParseError('the archive is empty');
  } catch (cause) {
    if (cause instanceof ParseError) throw cause;
    throw new ParseError(
      `the archive cannot be unpacked: ${cause instanceof Error ? cause.message : cause}`,
      { cause },
    );
  } finally {
    source.destroy();
    gunzip.destroy();
  }
}

interface Entry {
  readonly name: string;
  readonly mode: number;
  readonly size: number;
  readonly type: string;
  readonly link: string;
}

/** POSIX.1-1988 ustar header, IEEE Std 1003.1 pax, "ustar Interchange Format". */
function parseHeader(header: Uint8Array): Entry {
  let sum = 8 * 0x20;
  for (let i = 0; i < BLOCK; i++) if (i < 148 || i >= 156) sum += header[i]!;
  if (octal(header.subarray(148, 156)) !== sum)
    throw new ParseError('a header checksum of the archive is wrong');
  const type = header[156] === 0 ? '0' : String.fromCharCode(header[156]!);
  const posixMagic = trimNul(header.subarray(257, 263)) === 'ustar';
  const prefix = posixMagic ? trimNul(header.subarray(345, 500)) : '';
  const name = trimNul(header.subarray(0, 100));
  return {
    name: prefix === '' ? name : `${prefix}/${name}`,
    mode: octal(header.subarray(100, 108)),
    size: type === '5' || type === '2' ? 0 : octal(header.subarray(124, 136)),
    type,
    link: trimNul(header.subarray(157, 257)),
  };
}

function octal(field: Uint8Array): number {
  const text = trimNul(field).trim();
  if (!/^[0-7]{0,12}$/.test(text)) throw new ParseError('a number in the archive is not octal');
  return text === '' ? 0 : Number.parseInt(text, 8);
}

function trimNul(field: Uint8Array): string {
  const end = field.indexOf(0);
  return Buffer.from(end < 0 ? field : field.subarray(0, end)).toString('utf8');
}

/** "%d %s=%s\n" records, the first number being the length of the whole record. */
function parsePax(data: Uint8Array): Map<string, string> {
  const fields = new Map<string, string>();
  const bytes = Buffer.from(data);
  for (let at = 0; at < bytes.length; ) {
    const space = bytes.indexOf(0x20, at);
    const length = Number(bytes.toString('latin1', at, space));
    if (space < 0 || !Number.isInteger(length) || length <= space - at || at + length > bytes.length) {
      throw new ParseError('an extended header of the archive is malformed');
    }
    const record = bytes.toString('utf8', space + 1, at + length - 1);
    const equals = record.indexOf('=');
    if (equals > 0) fields.set(record.slice(0, equals), record.slice(equals + 1));
    at += length;
  }
  if (fields.has('size')) throw new ParseError('the archive uses pax sizes, which are not supported');
  return fields;
}

class BlockReader {
  readonly #chunks: AsyncIterator<Buffer>;
  #buffer: Buffer = Buffer.alloc(0);

  constructor(stream: AsyncIterable<Buffer>) {
    this.#chunks = stream[Symbol.asyncIterator]();
  }

  async #fill(): Promise<boolean> {
    const next = await this.#chunks.next();
    if (next.done) return false;
    this.#buffer = this.#buffer.length === 0 ? next.value : Buffer.concat([this.#buffer, next.value]);
    return true;
  }

  /** Exactly `length` bytes; undefined at a clean end. */
  async read(length: number): Promise<Uint8Array | undefined> {
    while (this.#buffer.length < length) {
      if (await this.#fill()) continue;
      if (this.#buffer.length === 0) return undefined;
      throw new ParseError('the archive is cut off');
    }
    const part = this.#buffer.subarray(0, length);
    this.#buffer = this.#buffer.subarray(length);
    return part;
  }

  /** Between one and `most` bytes. */
  async readSome(most: number): Promise<Uint8Array> {
    if (this.#buffer.length === 0 && !(await this.#fill())) throw new ParseError('the archive is cut off');
    const part = this.#buffer.subarray(0, most);
    this.#buffer = this.#buffer.subarray(part.length);
    return part;
  }

  async readPadded(size: number): Promise<Uint8Array> {
    const data = size === 0 ? new Uint8Array() : await this.read(size);
    if (data === undefined) throw new ParseError('the archive is cut off');
    await this.skipPadding(size);
    return data;
  }

  async skipPadding(size: number): Promise<void> {
    const padding = (BLOCK - (size % BLOCK)) % BLOCK;
    if (padding > 0 && (await this.read(padding)) === undefined)
      throw new ParseError('the archive is cut off');
  }
}
