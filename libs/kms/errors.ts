import { AsterismError, UnreachableError } from '@asterism/errors/errors';

/** A KMS or a store did not do it, but may later: down, slow, throttling. Trying again helps. */
export class KmsUnavailableError extends UnreachableError {
  /** Milliseconds to wait, where the other side said so. */
  readonly retryAfterMs: number | undefined;

  constructor(
    code:
      | 'ERR_KMS_UNAVAILABLE'
      | 'ERR_KMS_THROTTLED'
      | 'ERR_STORE_UNAVAILABLE'
      | 'ERR_STORE_THROTTLED'
      /** The store returns something older than what it was given. */
      | 'ERR_STORE_STALE',
    message: string,
    options?: { cause?: unknown; retryAfterMs?: number },
  ) {
    super(message, { code, cause: options?.cause });
    this.retryAfterMs = options?.retryAfterMs;
  }
}

export type KmsErrorCode =
  /** The settings name nothing that can be opened. */
  | 'ERR_KMS_SETTINGS'
  | 'ERR_STORE_SETTINGS'
  /** No credentials, expired ones, or wrong ones. */
  | 'ERR_KMS_CREDENTIALS'
  | 'ERR_STORE_CREDENTIALS'
  /** Known, but may not do this. */
  | 'ERR_KMS_DENIED'
  | 'ERR_STORE_DENIED'
  /** No such KEK; no such bucket or container. */
  | 'ERR_KMS_KEY_NOT_FOUND'
  | 'ERR_STORE_NOT_FOUND'
  /** The KEK is disabled, or waits for its deletion. */
  | 'ERR_KMS_KEY_DISABLED'
  /** The KEK's home refuses the wrapped bytes. */
  | 'ERR_KMS_UNWRAP'
  /** The other side answers what makes no sense, or is not who it should be. */
  | 'ERR_KMS_ANSWER'
  | 'ERR_STORE_ANSWER'
  /** The stored key of that id has another length than is wanted. */
  | 'ERR_DEK_LENGTH'
  /** There is another key of that id. */
  | 'ERR_DEK_EXISTS';

/** A KMS or a store refused. Trying the same again does not help; the message says what does. */
export class KmsError extends AsterismError {
  constructor(code: KmsErrorCode, message: string, options?: { cause?: unknown }) {
    super(code, message, options);
  }
}
