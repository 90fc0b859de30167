/** Names of objects: DEK ids. They begin with a letter or digit, so none is `.` or `..`. */
export const OBJECT_NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/;

/** Largest object that is read or written, in bytes. A wrapped DEK has about 1,000. */
export const MAX_OBJECT_BYTES = 64 * 1024;

/** An object as it was read. */
export interface StoredObject {
  readonly bytes: Uint8Array;
  /** Tells this content from later ones: ETag, generation, resourceVersion. */
  readonly version: string;
}

/**
 * Where wrapped DEKs lie: one object for each, by its id. The store is not trusted with their secrecy or their truth,
 * only with keeping them: what it returns is judged by whoever reads it.
 *
 * Every call ends within a time-out of 10 seconds for each exchange, or when the signal aborts. Failures are
 * KmsUnavailableError where trying again later helps, else KmsError.
 */
export interface DekStore {
  /** @returns undefined where there is no such object */
  get(name: string, signal?: AbortSignal): Promise<StoredObject | undefined>;
  /** Writes an object that is not there yet; of any number that try at once, one creates it. */
  create(name: string, bytes: Uint8Array, signal?: AbortSignal): Promise<'created' | 'exists'>;
  /** Writes over the object if it still has that version. */
  replace(
    name: string,
    bytes: Uint8Array,
    version: string,
    signal?: AbortSignal,
  ): Promise<'replaced' | 'changed'>;
  /** Every name there is, in pages: memory does not grow with their number. Others' objects are left out. */
  list(signal?: AbortSignal): AsyncIterable<string>;
  /** Removes it if it still has that version; nothing to do where it is gone. */
  remove(name: string, version: string, signal?: AbortSignal): Promise<'removed' | 'changed'>;
  close(): Promise<void>;
}
