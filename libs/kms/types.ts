import type { KekStatus } from './kek.ts';

/** Where data encryption keys come from: derived (cluster) or unwrapped by an external KMS. */
export interface KeyHome {
  readonly kind: 'cluster' | 'external';
  /** Of the KEK that wraps new keys, or of the master secret. */
  readonly generation: number;
  /**
   * @param id DEK id with its prefix, e.g. `key-measurementSecret` or `key-<LUKS2 UUID in lower case>`
   * @param length bytes wanted, 1 to 8160; of stored keys 1 to 96
   */
  getDek(id: string, length: number, signal?: AbortSignal): Promise<Uint8Array>;
  /** The envelope of a DEK as it is stored; undefined where there is none, and always where keys are derived. */
  wrapped(id: string, signal?: AbortSignal): Promise<Uint8Array | undefined>;
  /**
   * Makes a given key the DEK of that id; where there is one already, it must be the same.
   * @throws KmsError ERR_DEK_EXISTS it is another
   */
  importDek(id: string, dek: Uint8Array, signal?: AbortSignal): Promise<void>;
  /** What the KMS says of the KEK. */
  status(signal?: AbortSignal): Promise<KekStatus>;
  close(): Promise<void>;
}

/** Told what a home does, for metrics. Must not throw. */
export interface KeyObserver {
  /** An exchange with the KMS or the store has ended. */
  onExchange(what: 'kms' | 'store', outcome: 'ok' | 'failed', ms: number, code?: string): void;
  /** A key was asked for. */
  onCache(hit: boolean): void;
}
