import { randomUUID } from 'node:crypto';
import { type FileHandle, mkdir, open, rm } from 'node:fs/promises';
import { ParseError } from '@asterism/errors/errors';
import { DiskHeaderError, LUKS2_DATA_OFFSET, type Luks2Header, validateHeaderArea } from './luks2-header.ts';
import { withPrimary } from './luks2-repair.ts';

export interface HeaderPlace {
  /** Block device or image file. */
  readonly device: string;
  /** Whether its volume must have integrity protection. */
  readonly integrity: boolean;
  /** Folder in memory. */
  readonly scratch: string;
}

/**
 * The header of a disk, judged, in a file of this machine's memory. The disk's owner can change what is on the disk
 * between any two looks at it: keys are tried on the copy only, changes are made to the copy, and when they are done
 * the whole of it is written over whatever is on the disk by then.
 */
export class HeaderCopy {
  readonly path: string;
  readonly #place: HeaderPlace;
  #header: Luks2Header;

  private constructor(place: HeaderPlace, path: string, header: Luks2Header) {
    this.#place = place;
    this.path = path;
    this.#header = header;
  }

  /**
   * Makes a copy for as long as `work` runs.
   * @throws DiskHeaderError, ParseError see validateHeaderArea; `work` is not called
   */
  static async use<T>(place: HeaderPlace, work: (copy: HeaderCopy) => Promise<T>): Promise<T> {
    const area = await readHeaderArea(place.device);
    const header = await validateHeaderArea(area, place.integrity);
    await mkdir(place.scratch, { recursive: true, mode: 0o700 });
    const path = `${place.scratch}/header-${randomUUID()}`;
    try {
      const file = await open(path, 'wx', 0o600);
      try {
        await file.writeFile(area);
        // cryptsetup refuses a file that ends where the data should begin; the hole takes no memory.
        await file.truncate(LUKS2_DATA_OFFSET + 1024 * 1024);
      } finally {
        await file.close();
      }
      return await work(new HeaderCopy(place, path, header));
    } finally {
      await rm(path, { force: true });
    }
  }

  /** What was judged: at first the disk's header, then what was last written back. */
  get header(): Luks2Header {
    return this.#header;
  }

  /**
   * Puts the copy, as cryptsetup has changed it, on the disk.
   * @throws DiskHeaderError the copy is of another volume now: nothing is written
   */
  async writeBack(): Promise<void> {
    const area = await readHeaderArea(this.path);
    const header = await validateHeaderArea(area, this.#place.integrity);
    if (header.uuid !== this.#header.uuid || header.volume !== this.#header.volume)
      throw new DiskHeaderError('a change of key slots has changed the volume too; it is not written');
    const file = await open(this.#place.device, 'r+');
    try {
      await writeHeaderArea(file, area, header.headerSize);
    } finally {
      await file.close();
    }
    this.#header = header;
  }
}

/** The bytes in front of the data, with a torn first header made whole. */
export async function readHeaderArea(device: string): Promise<Uint8Array> {
  const file = await open(device, 'r');
  try {
    const area = new Uint8Array(LUKS2_DATA_OFFSET);
    let at = 0;
    while (at < area.length) {
      const { bytesRead } = await file.read(area, at, area.length - at, at);
      if (bytesRead === 0)
        throw new ParseError(`the state disk ends after ${at} bytes, before its data begin`);
      at += bytesRead;
    }
    return await withPrimary(area);
  } finally {
    await file.close();
  }
}

/**
 * Writes a header area in the order that is safe where the write is cut off: the key slots, then the first header,
 * then the second. A new slot is whole before a header names it, and a slot that is given up is gone before the
 * header forgets it. One of the headers is whole at every moment.
 */
export async function writeHeaderArea(
  file: Pick<FileHandle, 'write' | 'datasync'>,
  area: Uint8Array,
  headerSize: number,
): Promise<void> {
  for (const [from, to] of [
    [2 * headerSize, area.length],
    [0, headerSize],
    [headerSize, 2 * headerSize],
  ] as const) {
    for (let at = from; at < to; ) at += (await file.write(area, at, to - at, at)).bytesWritten;
    await file.datasync();
  }
}
