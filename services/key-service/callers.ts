import { hash } from 'node:crypto';
import { BoundedCache } from '@asterism/bytes/bounded-cache';
import type { KubernetesApi, KubernetesObject } from '@asterism/kubernetes/api';
import { StatusError } from '@asterism/rpc/status';
import type { RateLimiter } from '@asterism/runtime/rate-limiter';

/** Tokens must have been made for this audience: one that was stolen elsewhere opens nothing here. */
export const AUDIENCE = 'key-service';

/** How long a token that was taken back (its pod is gone, say) still counts. */
const CACHE_MS = 30_000;
const MAX_CACHED = 1000;
const MAX_TOKEN_BYTES = 8192;
/** Where TokenReview names the node of a token's pod (Kubernetes 1.29 on). */
const NODE_NAME = 'authentication.kubernetes.io/node-name';
const BEARER = /^Bearer ([A-Za-z0-9._~+/=-]+)$/;

/** Who calls, as the API server says. */
export interface Caller {
  /** `system:serviceaccount:<namespace>:<name>` */
  readonly account: string;
  /** The node that its pod runs on; undefined for a token that is bound to no pod. */
  readonly node: string | undefined;
}

export interface CallersOptions {
  readonly api: KubernetesApi;
  /** Bounds, for each address, what the API server is asked; calls with a token known to be good cost nothing. */
  readonly reviews: RateLimiter;
  /** Milliseconds on a clock that never goes back. Default performance.now. */
  readonly now?: () => number;
}

/** Who calls, by the service-account token of the call. The API server judges the token. */
export class Callers {
  readonly #options: CallersOptions;
  readonly #now: () => number;
  /** By the token's hash: tokens themselves are not kept. Only good ones, so guesses push nothing out. */
  readonly #known = new BoundedCache<{ caller: Caller; until: number }>(MAX_CACHED);
  readonly #running = new Map<string, Promise<Caller>>();

  constructor(options: CallersOptions) {
    this.#options = options;
    this.#now = options.now ?? (() => performance.now());
  }

  /**
   * @param authorization value of the call's `authorization` header
   * @param address who sent it
   * @throws StatusError UNAUTHENTICATED; BusyError; UnreachableError where the API server does not answer
   */
  async identify(authorization: string | undefined, address: string): Promise<Caller> {
    const token = BEARER.exec(authorization ?? '')?.[1];
    if (token === undefined || token.length > MAX_TOKEN_BYTES)
      throw unknown('the call carries no service-account token');
    const key = hash('sha256', token, 'base64');
    const known = this.#known.get(key);
    if (known !== undefined && known.until > this.#now()) return known.caller;
    this.#options.reviews.take(address);
    // Calls that come with the same token at the same time share one question.
    let review = this.#running.get(key);
    if (review === undefined) {
      review = this.#review(token, key).finally(() => this.#running.delete(key));
      this.#running.set(key, review);
    }
    return review;
  }

  async #review(token: string, key: string): Promise<Caller> {
    const review = await this.#options.api.call<TokenReview>(
      'POST',
      '/apis/authentication.k8s.io/v1/tokenreviews',
      { apiVersion: 'authentication.k8s.io/v1', kind: 'TokenReview', spec: { token, audiences: [AUDIENCE] } },
    );
    const { authenticated, audiences, user } = review.status ?? {};
    if (
      authenticated !== true ||
      audiences?.includes(AUDIENCE) !== true ||
      typeof user?.username !== 'string'
    ) {
      throw unknown(`the token is not valid for ${AUDIENCE}`);
    }
    const caller: Caller = { account: user.username, node: user.extra?.[NODE_NAME]?.[0] };
    this.#known.set(key, { caller, until: this.#now() + CACHE_MS });
    return caller;
  }
}

function unknown(why: string): StatusError {
  return new StatusError('UNAUTHENTICATED', 'ERR_NO_IDENTITY', why);
}

interface TokenReview extends KubernetesObject {
  readonly status?: {
    readonly authenticated?: boolean;
    readonly audiences?: readonly string[];
    readonly user?: {
      readonly username?: string;
      readonly extra?: Readonly<Record<string, readonly string[]>>;
    };
  };
}
