import { hash } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { printable } from '@asterism/bytes/printable';
import { AsterismError } from '@asterism/errors/errors';
import { KmsError } from '@asterism/kms/errors';
import type { HomeConfiguration, KeyConfiguration } from '@asterism/kms/key-configuration';
import type { KeyHomeOptions } from '@asterism/kms/open';
import type { KeyHome } from '@asterism/kms/types';
import { parseKmsUri } from '@asterism/kms/uri';

/** Calls that an old home still answers end within this; those of an external KMS take 20 seconds at most. */
const GRACE_MS = 30_000;

/** A data key and where it comes from. */
export interface DataKey {
  readonly dataKey: Uint8Array;
  readonly generation: number;
  /** As the external KMS wrapped it; empty where keys are derived. */
  readonly envelope: Uint8Array;
}

interface OpenHome {
  readonly digest: string;
  readonly home: KeyHome;
  /** Calls that it has not answered yet. */
  readonly calls: Set<Promise<unknown>>;
}

export interface KeyHomesOptions {
  readonly open: (home: HomeConfiguration & Pick<KeyHomeOptions, 'previous'>) => Promise<KeyHome>;
  readonly log: { error(fields: object, message: string): void };
  /** Default {@link GRACE_MS}. */
  readonly graceMs?: number;
}

/**
 * The key homes of the cluster as configured. Derived keys have one home for each generation. Stored keys have one home:
 * a key keeps its value when it is wrapped anew, and while that is under way the home reads both generations.
 */
export class KeyHomes {
  readonly #options: KeyHomesOptions;
  /** The older one first. */
  #homes: readonly OpenHome[] = [];
  #configuration: KeyConfiguration | undefined;
  #version = '';

  constructor(options: KeyHomesOptions) {
    this.#options = options;
  }

  /** Generation of new keys; 0 before there is a configuration. */
  get generation(): number {
    return this.#homes.at(-1)?.home.generation ?? 0;
  }

  /** What is in force. */
  get configuration(): KeyConfiguration | undefined {
    return this.#configuration;
  }

  /** Which version of the configuration is in force; empty before there is one. */
  get version(): string {
    return this.#version;
  }

  /**
   * Takes a new configuration. Homes that stay keep what they have cached; those that go end their calls first, and only
   * then is the version in force: nobody makes a key by the former configuration any more.
   *
   * @throws AsterismError a home cannot be opened, or a rotation leads to a key that its KMS does not offer; what was
   *   there stays
   */
  async configure(configuration: KeyConfiguration, version = ''): Promise<void> {
    const next: OpenHome[] = [];
    const fresh: KeyHome[] = [];
    try {
      for (const wanted of effective(configuration.homes)) {
        const digest = hash('sha256', JSON.stringify(wanted), 'hex');
        let open = this.#homes.find((one) => one.digest === digest);
        if (open === undefined) {
          open = { digest, home: await this.#options.open(wanted), calls: new Set() };
          fresh.push(open.home);
          // Not when it starts: then it is there for the keys that it can give.
          if (this.#homes.length > 0 && wanted.previous !== undefined) await checkNext(open.home);
        }
        next.push(open);
      }
      const [first, second] = next;
      if (first && second && second.home.generation <= first.home.generation)
        throw new AsterismError('ERR_KEY_CONFIGURATION', 'the second key home is not of a later generation');
    } catch (error) {
      await Promise.allSettled(fresh.map((home) => home.close()));
      throw error;
    }
    const gone = this.#homes.filter((one) => !next.includes(one));
    this.#homes = next;
    await Promise.all(gone.map((one) => this.#end(one)));
    this.#configuration = configuration;
    this.#version = version;
  }

  /**
   * @param id with its prefix
   * @param generation of a derived key; 0: the present one
   * @throws AsterismError ERR_KEY_GENERATION there is no such generation (any more)
   */
  async dataKey(id: string, length: number, generation: number, signal?: AbortSignal): Promise<DataKey> {
    const present = this.#homes.at(-1)?.home;
    if (present === undefined) throw new AsterismError('ERR_KEY_CONFIGURATION', 'no key home is open yet');
    const asked = generation === 0 || present.kind === 'external' ? present.generation : generation;
    const open = this.#homes.find(({ home }) => home.generation === asked);
    if (open === undefined)
      throw new AsterismError(
        'ERR_KEY_GENERATION',
        `keys of generation ${generation} are not given: the present one is ${present.generation}`,
      );
    const call = keyOf(open.home, id, length, signal);
    open.calls.add(call);
    try {
      return await call;
    } finally {
      open.calls.delete(call);
    }
  }

  async close(): Promise<void> {
    const homes = this.#homes;
    this.#homes = [];
    for (const { home } of homes) await home.close();
  }

  async #end({ home, calls }: OpenHome): Promise<void> {
    const patience = new AbortController();
    const late = sleep(this.#options.graceMs ?? GRACE_MS, undefined, { signal: patience.signal, ref: false });
    await Promise.race([Promise.allSettled(calls), late]);
    patience.abort();
    await late.catch(() => {});
    await home.close().catch((err) => this.#options.log.error({ err }, 'a key home was not closed'));
  }
}

async function keyOf(
  home: KeyHome,
  id: string,
  length: number,
  signal: AbortSignal | undefined,
): Promise<DataKey> {
  const dataKey = await home.getDek(id, length, signal);
  const envelope = (await home.wrapped(id, signal)) ?? new Uint8Array();
  return { dataKey, generation: home.generation, envelope };
}

/** A mistyped name of a key is found before new keys are to be wrapped by it. */
async function checkNext(home: KeyHome): Promise<void> {
  const { enabled, keyId } = await home.status();
  if (!enabled)
    throw new KmsError(
      'ERR_KMS_KEY_DISABLED',
      `the key that the rotation leads to, ${printable(keyId, 300)}, is disabled at its KMS`,
    );
}

function effective(
  homes: readonly HomeConfiguration[],
): readonly (HomeConfiguration & Pick<KeyHomeOptions, 'previous'>)[] {
  const [older, newest] = homes;
  if (older === undefined || newest === undefined || parseKmsUri(newest.kmsUri).kind === 'cluster')
    return homes;
  const { kmsUri, credentials } = older;
  return [{ ...newest, previous: { kmsUri, ...(credentials && { credentials: credentials.kms }) } }];
}
