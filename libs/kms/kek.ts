/** Bytes of every key that a KEK wraps: the envelope key of one DEK. */
export const ENVELOPE_KEY_BYTES = 32;

/** A key as it left the KMS that wrapped it. Worth nothing without that KMS. */
export interface WrappedKey {
  /** How it was wrapped, a number of the backend's own (Constellation v2.6 wrote 1). */
  readonly mechanism: number;
  /** Which KEK wrapped it, with its version where the KMS has versions: ARN, key version name, unique identifier. */
  readonly keyId: string;
  /** 1 to 8192 bytes, only for the KMS to read. */
  readonly wrappedKey: Uint8Array;
}

/** What the KMS says of the KEK. */
export interface KekStatus {
  /** What a key wrapped now would get as its keyId. */
  readonly keyId: string;
  /** Whether it wraps and unwraps at present. */
  readonly enabled: boolean;
  /** For a person: state, algorithm, protection. */
  readonly detail: string;
}

/**
 * A key encryption key (KEK) that never leaves its home: a KMS or an HSM.
 *
 * Every call ends within the time-out of its backend (10 seconds for one exchange where nothing else is said), or when
 * the signal aborts. Failures are KmsUnavailableError where trying again later helps, else KmsError.
 */
export interface Kek {
  /**
   * @param key {@link ENVELOPE_KEY_BYTES} bytes; the caller zeroes it
   * @param context what the key is for, 1 to 512 printable ASCII characters. The home binds it as authenticated data
   *   where it can (and may show it in its own audit log, so it is no secret); whoever calls must not rely on it, the
   *   envelope binds it too.
   */
  wrap(key: Uint8Array, context: string, signal?: AbortSignal): Promise<WrappedKey>;
  /**
   * @param context as it was wrapped with; undefined for what v2.6 wrapped, which had none
   * @returns {@link ENVELOPE_KEY_BYTES} bytes
   * @throws KmsError ERR_KMS_UNWRAP the home refuses these bytes: damaged, of another KEK, or of another context
   */
  unwrap(wrapped: WrappedKey, context: string | undefined, signal?: AbortSignal): Promise<Uint8Array>;
  /** Asks for the key, without using it. @throws KmsError ERR_KMS_KEY_NOT_FOUND */
  status(signal?: AbortSignal): Promise<KekStatus>;
  close(): Promise<void>;
}
