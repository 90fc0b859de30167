import { createHash } from 'node:crypto';
import { type FileHandle, mkdir, open, readFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { AsterismError } from '@asterism/errors/errors';

/** One grant or refusal. Never key material: who, what evidence, which key id. */
export interface AuditEvent {
  readonly event: string;
  readonly outcome: 'granted' | 'refused';
  readonly [field: string]: string | number | boolean | undefined;
}

const GENESIS = '0'.repeat(64);

interface Line {
  readonly seq: number;
  readonly time: string;
  readonly previous: string;
  readonly hash: string;
}

const hashOf = (text: string): string => createHash('sha256').update(text).digest('hex');

/**
 * An append-only file of JSON lines, each with the SHA-256 of the one before: a line that was changed or taken out
 * breaks the chain. `append` resolves when the line is on the disk, so an answer that waits for it never leaves
 * unrecorded.
 */
export class AuditLog {
  readonly #file: FileHandle;
  #seq: number;
  #previous: string;
  #tail: Promise<void> = Promise.resolve();
  #batch: { text: string; done: Promise<void> } | undefined;

  private constructor(file: FileHandle, seq: number, previous: string) {
    this.#file = file;
    this.#seq = seq;
    this.#previous = previous;
  }

  /**
   * Opens the log, or makes it. A last line that a crash cut off is cut away and recorded as such; a chain that is
   * broken anywhere else is an error, and the log is left as it is.
   * @throws AsterismError ERR_AUDIT_LOG
   */
  static async open(path: string): Promise<AuditLog> {
    await mkdir(dirname(path), { recursive: true, mode: 0o700 });
    const text = await readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return '';
      throw error;
    });
    const whole = text.slice(0, text.lastIndexOf('\n') + 1);
    const { count, last } = checkChain(whole, path);
    const file = await open(path, 'a', 0o600);
    const log = new AuditLog(file, count, last);
    if (whole.length !== text.length) {
      await file.truncate(Buffer.byteLength(whole));
      await log.append({
        event: 'audit-log-tail-lost',
        outcome: 'refused',
        bytes: text.length - whole.length,
      });
    }
    return log;
  }

  /** Lines that are asked for while one is being written go to the disk together. */
  append(event: AuditEvent): Promise<void> {
    const body = { seq: this.#seq++, time: new Date().toISOString(), previous: this.#previous, ...event };
    this.#previous = hashOf(JSON.stringify(body));
    const line = `${JSON.stringify({ ...body, hash: this.#previous })}\n`;
    if (this.#batch !== undefined) {
      this.#batch.text += line;
      return this.#batch.done;
    }
    const batch = { text: line, done: Promise.resolve() };
    this.#batch = batch;
    batch.done = this.#tail.then(async () => {
      this.#batch = undefined;
      await this.#file.appendFile(batch.text);
      await this.#file.datasync();
    });
    // After a failed write nothing is recorded any more, so nothing is granted any more.
    this.#tail = batch.done;
    this.#tail.catch(() => {});
    return batch.done;
  }

  async close(): Promise<void> {
    await this.#tail.catch(() => {});
    await this.#file.close();
  }
}

/**
 * Checks every line of a log.
 * @returns the number of lines
 * @throws AsterismError ERR_AUDIT_LOG naming the first line that is wrong
 */
export async function verifyAuditLog(path: string): Promise<number> {
  return checkChain(await readFile(path, 'utf8'), path).count;
}

function checkChain(text: string, path: string): { count: number; last: string } {
  let previous = GENESIS;
  let count = 0;
  for (const line of text.split('\n')) {
    if (line === '') continue;
    const broken = (why: string): AsterismError =>
      new AsterismError(
        'ERR_AUDIT_LOG',
        `${path}: line ${count + 1} ${why}: the log was changed; keep it and start a new one`,
      );
    let parsed: Line;
    try {
      parsed = JSON.parse(line) as Line;
    } catch {
      throw broken('is not JSON');
    }
    const { hash, ...body } = parsed;
    if (body.seq !== count) throw broken(`has number ${body.seq}, expected ${count}`);
    if (body.previous !== previous) throw broken('does not follow from the line before');
    if (hashOf(JSON.stringify(body)) !== hash) throw broken('has another hash than its content');
    previous = hash;
    count++;
  }
  return { count, last: previous };
}
