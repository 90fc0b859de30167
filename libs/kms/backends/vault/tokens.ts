import { ParseError } from '@asterism/errors/errors';
import { KmsError } from '../../errors.ts';
import type { Settings } from '../../settings.ts';
import { untilAborted } from '../../until-aborted.ts';
import { type Login, parseLogin, TOKEN } from './answers.ts';
import type { VaultClient } from './client.ts';

/** Part of its life after which a token is replaced. */
const RENEW_AFTER = 2 / 3;

/** The token of each request. */
export interface Tokens {
  /** @throws KmsError ERR_KMS_CREDENTIALS | KmsUnavailableError | the signal's reason */
  get(signal: AbortSignal | undefined): Promise<string>;
  /** The server does not know this one. @returns whether another can be had */
  refused(token: string): boolean;
}

/** @throws KmsError ERR_KMS_SETTINGS neither or both of token and AppRole are given */
export function tokensOf({ parameters, credentials }: Settings, client: VaultClient): Tokens {
  const { token, roleID, secretID } = credentials;
  if (token !== undefined && roleID === undefined && secretID === undefined) {
    const given = token.trim();
    if (!TOKEN.test(given))
      throw new KmsError('ERR_KMS_SETTINGS', 'the credential token of the vault backend is no token');
    return { get: async () => given, refused: () => false };
  }
  if (token === undefined && roleID !== undefined && secretID !== undefined)
    return new AppRole(client, parameters.authMount ?? 'approle', roleID.trim(), secretID.trim());
  throw new KmsError(
    'ERR_KMS_SETTINGS',
    'the vault backend needs the credentials token, or roleID and secretID, and not both kinds',
  );
}

/** Tokens by AppRole: one at a time, replaced before it ends. */
class AppRole implements Tokens {
  readonly #client: VaultClient;
  readonly #mount: string;
  readonly #roleId: string;
  readonly #secretId: string;
  #held: { readonly token: string; readonly replaceAt: number } | undefined;
  #pending: Promise<string> | undefined;

  constructor(client: VaultClient, mount: string, roleId: string, secretId: string) {
    this.#client = client;
    this.#mount = mount;
    this.#roleId = roleId;
    this.#secretId = secretId;
  }

  async get(signal: AbortSignal | undefined): Promise<string> {
    if (this.#held !== undefined && performance.now() < this.#held.replaceAt) return this.#held.token;
    // Shared by all who ask meanwhile, so it does not end with the signal of one of them.
    this.#pending ??= this.#logIn().finally(() => {
      this.#pending = undefined;
    });
    return untilAborted(this.#pending, signal);
  }

  refused(token: string): boolean {
    if (this.#held?.token === token) this.#held = undefined;
    return true;
  }

  async #logIn(): Promise<string> {
    const began = performance.now();
    const path = `auth/${this.#mount}/login`;
    const body = { role_id: this.#roleId, secret_id: this.#secretId };
    const { status, body: answer, said } = await this.#client.send({ method: 'POST', path, body }, undefined);
    if (status !== 200) {
      const why = said === '' ? `${status}` : `${status}, ${said}`;
      throw new KmsError(
        'ERR_KMS_CREDENTIALS',
        `${this.#client.host} refuses the login by AppRole at ${path} (${why}); check roleID, secretID (has it run out?) and authMount`,
      );
    }
    const { token, seconds } = loginOf(answer, this.#client.host);
    const lifeMs = seconds === 0 ? Number.POSITIVE_INFINITY : seconds * 1000;
    this.#held = { token, replaceAt: began + lifeMs * RENEW_AFTER };
    return token;
  }
}

function loginOf(answer: Readonly<Record<string, unknown>>, host: string): Login {
  try {
    return parseLogin(answer);
  } catch (cause) {
    if (!(cause instanceof ParseError)) throw cause;
    throw new KmsError('ERR_KMS_ANSWER', `${host} answers a login with something else than a token`, {
      cause,
    });
  }
}
