/** Where data encryption keys come from: derived (cluster) or unwrapped by an external KMS. */
export interface KeyManager {
  /**
   * @param id DEK id with its prefix, e.g. `key-measurementSecret` or `key-<LUKS2 UUID in lower case>`
   * @param length bytes wanted, 1 to 8160
   */
  getDek(id: string, length: number, signal?: AbortSignal): Promise<Uint8Array>;
  close(): Promise<void>;
}
