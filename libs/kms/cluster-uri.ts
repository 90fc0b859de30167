import { fromBase64Url, toBase64Url } from '@asterism/bytes/encoding';
import { ParseError } from '@asterism/errors/errors';

/** Storage that goes with the cluster KMS: derived keys need none. */
export const NO_STORE_URI = 'storage://no-store';

const PREFIX = 'kms://cluster-kms?';

/** Key and salt of a cluster's master secret. */
export interface ClusterKey {
  /** 16 bytes or more. */
  readonly key: Uint8Array;
  /** 32 bytes or more. */
  readonly salt: Uint8Array;
}

/** `kms://cluster-kms?key=...&salt=...` with URL-safe padded base64 (wire-facts 4.1). It is as secret as the key. */
export function renderClusterKmsUri({ key, salt }: ClusterKey): string {
  return `${PREFIX}key=${toBase64Url(key)}&salt=${toBase64Url(salt)}`;
}

/** @throws ParseError (ERR_KMS_URI); messages never hold what was read */
export function parseClusterKmsUri(uri: string): ClusterKey {
  const bad = (why: string) =>
    new ParseError(`not a URI of the cluster KMS: ${why}`, { code: 'ERR_KMS_URI' });
  if (!uri.startsWith(PREFIX) || uri.length > 16_384) throw bad(`it must begin with ${PREFIX}`);
  const found = new Map<string, string>();
  for (const parameter of uri.slice(PREFIX.length).split('&')) {
    const [, name, value] = /^(key|salt)=([A-Za-z0-9_%=-]+)$/.exec(parameter) ?? [];
    if (name === undefined || value === undefined) throw bad('only key and salt are parameters');
    if (found.has(name)) throw bad(`${name} is given twice`);
    // A v2.6 peer escapes the padding.
    found.set(name, value.replaceAll(/%3[dD]/g, '='));
  }
  const decode = (name: string, minimum: number) => {
    let bytes: Uint8Array;
    try {
      bytes = fromBase64Url(found.get(name) ?? '');
    } catch {
      throw bad(`${name} is not URL-safe base64`);
    }
    if (bytes.length < minimum) throw bad(`${name} has fewer than ${minimum} bytes`);
    return bytes;
  };
  return { key: decode('key', 16), salt: decode('salt', 32) };
}
