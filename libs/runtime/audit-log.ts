import { hash } from 'node:crypto';
import { constants } from 'node:fs';
import { type FileHandle, mkdir, open } from 'node:fs/promises';
import { dirname } from 'node:path';
import { AsterismError } from '@asterism/errors/errors';

/** One grant or refusal. Never key material: who, what evidence, which key id. */
export interface AuditEvent {
  readonly event: string;
  readonly outcome: 'granted' | 'refused';
  /** Names that the log itself uses are not for events. */
  readonly seq?: never;
  readonly time?: never;
  readonly previous?: never;
  readonly hash?: never;
  readonly [field: string]: string | number | boolean | undefined;
}

const GENESIS = '0'.repeat(64);
/** Longer lines are not written here. */
const MAX_LINE = 64 * 1024;

const hashOf = (text: string): string => hash('sha256', text, 'hex');

/**
 * An append-only file of JSON lines, each with the SHA-256 of the one before: a line that was changed or taken out
 * breaks the chain. (Lines cut off at the end leave a chain that is whole: who must notice that keeps `head` somewhere
 * else.) `append` resolves when the line is on the disk, so an answer that waits for it never leaves unrecorded.
 */
export class AuditLog {
  readonly #path: string;
  readonly #file: FileHandle;
  #seq: number;
  #head: string;
  #size: number;
  #tail: Promise<void> = Promise.resolve();
  #batch: { text: string; done: Promise<void> } | undefined;
  #failure: AsterismError | undefined;

  private constructor(path: string, file: FileHandle, chain: Chain) {
    this.#path = path;
    this.#file = file;
    this.#seq = chain.count;
    this.#head = chain.head;
    this.#size = chain.bytes;
  }

  /**
   * Opens the log, or makes it. A last line that a crash cut off is cut away and recorded as such; a chain that is
   * broken anywhere else is an error, and the log is left as it is.
   * @throws AsterismError ERR_AUDIT_LOG
   */
  static async open(path: string): Promise<AuditLog> {
    await mkdir(dirname(path), { recursive: true, mode: 0o700 });
    const flags = constants.O_RDWR | constants.O_APPEND | constants.O_CREAT | constants.O_NOFOLLOW;
    const file = await open(path, flags, 0o600);
    try {
      const chain = await readChain(file, path);
      const log = new AuditLog(path, file, chain);
      if (chain.lost > 0) {
        await file.truncate(chain.bytes);
        await log.append({ event: 'audit-log-tail-lost', outcome: 'refused', bytes: chain.lost });
      }
      await syncFolder(dirname(path));
      return log;
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  /** Lines so far, and the hash of the last one. */
  get head(): { readonly lines: number; readonly hash: string } {
    return { lines: this.#seq, hash: this.#head };
  }

  /** Why nothing can be recorded any more, so nothing may be granted any more; undefined while all is well. */
  get failure(): AsterismError | undefined {
    return this.#failure;
  }

  /**
   * Lines that are asked for while one is being written go to the disk together.
   * @throws AsterismError ERR_AUDIT_LOG, for this line and every later one
   */
  append(event: AuditEvent): Promise<void> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    const body = JSON.stringify({
      ...event,
      seq: this.#seq++,
      time: new Date().toISOString(),
      previous: this.#head,
    });
    this.#head = hashOf(body);
    const line = `${body.slice(0, -1)},"hash":"${this.#head}"}\n`;
    if (this.#batch !== undefined) {
      this.#batch.text += line;
      return this.#batch.done;
    }
    const batch = { text: line, done: Promise.resolve() };
    this.#batch = batch;
    batch.done = this.#tail.then(() => {
      this.#batch = undefined;
      return this.#write(batch.text);
    });
    this.#tail = batch.done;
    this.#tail.catch(() => {});
    return batch.done;
  }

  async close(): Promise<void> {
    await this.#tail.catch(() => {});
    await this.#file.close();
  }

  async #write(text: string): Promise<void> {
    try {
      const { size } = await this.#file.stat();
      if (size !== this.#size)
        throw new Error(`somebody else wrote to it: ${size} bytes instead of ${this.#size}`);
      await this.#file.appendFile(text);
      await this.#file.datasync();
      this.#size += Buffer.byteLength(text);
    } catch (cause) {
      this.#failure = new AsterismError(
        'ERR_AUDIT_LOG',
        `${this.#path} cannot be written: nothing is granted unrecorded`,
        { cause },
      );
      throw this.#failure;
    }
  }
}

/**
 * Checks every line of a log.
 * @returns the number of lines, the hash of the last one, and how many bytes of a cut-off line follow
 * @throws AsterismError ERR_AUDIT_LOG naming the first line that is wrong
 */
export async function verifyAuditLog(
  path: string,
): Promise<{ readonly lines: number; readonly hash: string; readonly lost: number }> {
  const file = await open(path, 'r');
  try {
    const { count, head, lost } = await readChain(file, path);
    return { lines: count, hash: head, lost };
  } finally {
    await file.close();
  }
}

interface Chain {
  readonly count: number;
  readonly head: string;
  /** Of whole lines. */
  readonly bytes: number;
  /** Bytes after the last whole line. */
  readonly lost: number;
}

interface Line {
  readonly seq: number;
  readonly previous: string;
  readonly hash: string;
}

async function readChain(file: FileHandle, path: string): Promise<Chain> {
  let head = GENESIS;
  let count = 0;
  let bytes = 0;
  let rest: Buffer = Buffer.alloc(0);
  const stream = file.createReadStream({ start: 0, autoClose: false, highWaterMark: 1 << 20 });
  for await (const chunk of stream as AsyncIterable<Buffer>) {
    rest = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
    for (;;) {
      const newline = rest.indexOf(0x0a);
      if (newline < 0 && rest.length > MAX_LINE) throw broken(path, count, 'is too long');
      if (newline < 0) break;
      head = checkLine(rest.toString('utf8', 0, newline), { path, count, head });
      count++;
      bytes += newline + 1;
      rest = rest.subarray(newline + 1);
    }
  }
  return { count, head, bytes, lost: rest.length };
}

/** @returns the line's hash */
function checkLine(text: string, at: { path: string; count: number; head: string }): string {
  const bad = (why: string) => broken(at.path, at.count, why);
  let line: Line;
  try {
    line = JSON.parse(text) as Line;
  } catch {
    throw bad('is not JSON');
  }
  if (typeof line !== 'object' || line === null) throw bad('is not an object');
  if (line.seq !== at.count) throw bad(`has number ${line.seq}`);
  if (line.previous !== at.head) throw bad('does not follow from the line before');
  const end = `,"hash":"${line.hash}"}`;
  if (!text.endsWith(end)) throw bad('does not end with its hash');
  if (hashOf(`${text.slice(0, -end.length)}}`) !== line.hash) throw bad('has another hash than its content');
  return line.hash;
}

function broken(path: string, index: number, why: string): AsterismError {
  return new AsterismError(
    'ERR_AUDIT_LOG',
    `${path}: line ${index + 1} ${why}: the log was changed; keep it and start a new one`,
  );
}

/** A new file is there after a crash only when its folder was written too. */
async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, 'r');
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}
