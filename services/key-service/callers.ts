import { createHash } from 'node:crypto';
import type { KubernetesApi, KubernetesObject } from '@asterism/kubernetes/api';
import { StatusError } from '@asterism/rpc/status';

/** Tokens must have been made for this audience: one that was stolen elsewhere opens nothing here. */
export const AUDIENCE = 'key-service';

const CACHE_MS = 30_000;
const MAX_CACHED = 1000;
const MAX_TOKEN_BYTES = 8192;

/** Who calls, by the service-account token of the call. The API server judges the token. */
export class Callers {
  readonly #api: KubernetesApi;
  readonly #cache = new Map<string, { caller: string; until: number }>();
  readonly #now: () => number;

  constructor(api: KubernetesApi, now: () => number = () => performance.now()) {
    this.#api = api;
    this.#now = now;
  }

  /**
   * @param authorization value of the call's `authorization` header
   * @returns `system:serviceaccount:<namespace>:<name>`
   * @throws StatusError UNAUTHENTICATED
   */
  async identify(authorization: string | undefined, signal: AbortSignal): Promise<string> {
    const token = /^Bearer ([A-Za-z0-9._~+/=-]+)$/.exec(authorization ?? '')?.[1];
    if (token === undefined || token.length > MAX_TOKEN_BYTES) {
      throw new StatusError(
        'UNAUTHENTICATED',
        'ERR_NO_IDENTITY',
        'the call carries no service-account token',
      );
    }
    // The token itself is not kept.
    const key = createHash('sha256').update(token).digest('base64');
    const cached = this.#cache.get(key);
    if (cached !== undefined && cached.until > this.#now()) return cached.caller;
    const caller = await this.#review(token, signal);
    if (this.#cache.size >= MAX_CACHED) this.#cache.delete(this.#cache.keys().next().value!);
    this.#cache.set(key, { caller, until: this.#now() + CACHE_MS });
    return caller;
  }

  async #review(token: string, signal: AbortSignal): Promise<string> {
    const review = await this.#api.call<TokenReview>(
      'POST',
      '/apis/authentication.k8s.io/v1/tokenreviews',
      { apiVersion: 'authentication.k8s.io/v1', kind: 'TokenReview', spec: { token, audiences: [AUDIENCE] } },
      signal,
    );
    const { authenticated, audiences, user } = review.status ?? {};
    if (
      authenticated !== true ||
      audiences?.includes(AUDIENCE) !== true ||
      typeof user?.username !== 'string'
    ) {
      throw new StatusError('UNAUTHENTICATED', 'ERR_NO_IDENTITY', `the token is not valid for ${AUDIENCE}`);
    }
    return user.username;
  }
}

interface TokenReview extends KubernetesObject {
  readonly status?: {
    readonly authenticated?: boolean;
    readonly audiences?: readonly string[];
    readonly user?: { readonly username?: string };
  };
}
