import { readFile, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import { syncFolder, writeFileAtomic } from '@asterism/disk/atomic-file';
import { ParseError } from '@asterism/errors/errors';
import { z } from 'zod';

const schema = z.strictObject({
  version: z.literal(1),
  kind: z.enum(['init', 'join']),
  /** Hex; what PCR 15 was, or is about to be, extended with. */
  clusterId: z.string().regex(/^[0-9a-f]{64}$/),
  /** Hash of the order that this run carries out: a later call may resume the same order only. */
  order: z.string().max(200),
  done: z.array(z.string().max(64)).max(100),
  /** Facts that later runs need; never secrets. */
  facts: z.record(z.string().max(64), z.string().max(4096)),
  /** All phases are done and, for an init, the answer is confirmed or its time is over. */
  complete: z.boolean(),
});

type Content = z.infer<typeof schema>;

/**
 * What an init or a join has done so far, on the state disk. Each change is on the disk before it counts, so that
 * a process that is killed at any point finds at its next start a true account or one that is a single phase late.
 */
export class Journal {
  readonly path: string;
  #content: Content;

  private constructor(path: string, content: Content) {
    this.path = path;
    this.#content = content;
  }

  /**
   * @returns undefined where there is none
   * @throws ParseError it is not a journal: nothing is guessed from half a file
   */
  static async load(path: string): Promise<Journal | undefined> {
    let text: string;
    try {
      text = await readFile(path, 'utf8');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
      throw error;
    }
    try {
      return new Journal(path, schema.parse(JSON.parse(text)));
    } catch (cause) {
      throw new ParseError(`${path} is not a journal of this software`, { cause });
    }
  }

  static async begin(
    path: string,
    kind: Content['kind'],
    clusterId: string,
    order: string,
  ): Promise<Journal> {
    const journal = new Journal(path, {
      version: 1,
      kind,
      clusterId,
      order,
      done: [],
      facts: {},
      complete: false,
    });
    await journal.#save({});
    return journal;
  }

  get clusterId(): string {
    return this.#content.clusterId;
  }
  get order(): string {
    return this.#content.order;
  }
  get complete(): boolean {
    return this.#content.complete;
  }
  get done(): readonly string[] {
    return this.#content.done;
  }

  isDone(phase: string): boolean {
    return this.#content.done.includes(phase);
  }
  fact(name: string): string | undefined {
    return this.#content.facts[name];
  }

  async markDone(phase: string): Promise<void> {
    if (!this.isDone(phase)) await this.#save({ done: [...this.#content.done, phase] });
  }
  async setFact(name: string, value: string): Promise<void> {
    await this.#save({ facts: { ...this.#content.facts, [name]: value } });
  }
  async markComplete(): Promise<void> {
    await this.#save({ complete: true });
  }

  async remove(): Promise<void> {
    await rm(this.path, { force: true });
    await syncFolder(dirname(this.path));
  }

  async #save(change: Partial<Content>): Promise<void> {
    const content = { ...this.#content, ...change };
    await writeFileAtomic(this.path, `${JSON.stringify(content, null, '\t')}\n`, 0o600);
    this.#content = content;
  }
}
