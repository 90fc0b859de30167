import { hash } from 'node:crypto';
import { AsterismError } from '@asterism/errors/errors';
import type { HomeConfiguration, KeyConfiguration } from '@asterism/kms/key-configuration';
import type { KeyHomeOptions } from '@asterism/kms/open';
import type { KeyHome } from '@asterism/kms/types';
import { parseKmsUri } from '@asterism/kms/uri';

/** Calls that an old home still answers end within this. */
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
   * Takes a new configuration. Homes that stay keep what they have cached; those that go end their calls first.
   * @throws AsterismError a home cannot be opened; the present ones stay
   */
  async configure(configuration: KeyConfiguration, version = ''): Promise<void> {
    const next: OpenHome[] = [];
    const fresh: KeyHome[] = [];
    try {
      for (const wanted of effective(configuration.homes)) {
        const digest = hash('sha256', JSON.stringify(wanted), 'hex');
        let open = this.#homes.find((one) => one.digest === digest);
        if (open === undefined) {
          open = { digest, home: await this.#options.open(wanted) };
          fresh.push(open.home);
        }
        next.push(open);
      }
      const [first, second] = next;
      if (first && second && second.home.generation <= first.home.generation)
        throw new AsterismError('ERR_KEY_CONFIGURATION', 'the second key home is not of a later generation');
    } catch (error) {
      for (const home of fresh) await home.close();
      throw error;
    }
    const gone = this.#homes.filter((one) => !next.includes(one));
    this.#homes = next;
    this.#configuration = configuration;
    this.#version = version;
    for (const { home } of gone) this.#closeLater(home);
  }

  /**
   * @param id with its prefix
   * @param generation of a derived key; 0: the present one
   * @throws AsterismError ERR_KEY_GENERATION there is no such generation (any more)
   */
  async dataKey(id: string, length: number, generation: number, signal?: AbortSignal): Promise<DataKey> {
    const homes = this.#homes.map(({ home }) => home);
    const present = homes.at(-1);
    if (present === undefined) throw new AsterismError('ERR_KEY_CONFIGURATION', 'no key home is open yet');
    const asked = generation === 0 || present.kind === 'external' ? present.generation : generation;
    const home = homes.find((one) => one.generation === asked);
    if (home === undefined)
      throw new AsterismError(
        'ERR_KEY_GENERATION',
        `keys of generation ${generation} are not given: the present one is ${present.generation}`,
      );
    const dataKey = await home.getDek(id, length, signal);
    const envelope = (await home.wrapped(id, signal)) ?? new Uint8Array();
    return { dataKey, generation: home.generation, envelope };
  }

  async close(): Promise<void> {
    const homes = this.#homes;
    this.#homes = [];
    for (const { home } of homes) await home.close();
  }

  #closeLater(home: KeyHome): void {
    setTimeout(() => {
      home.close().catch((err) => this.#options.log.error({ err }, 'a key home was not closed'));
    }, this.#options.graceMs ?? GRACE_MS).unref();
  }
}

function effective(homes: readonly HomeConfiguration[]) {
  const [older, newest] = homes;
  if (older === undefined || newest === undefined || parseKmsUri(newest.kmsUri).kind === 'cluster')
    return homes;
  const { kmsUri, credentials } = older;
  return [{ ...newest, previous: { kmsUri, ...(credentials && { credentials: credentials.kms }) } }];
}
