import { fromBase64Url, toBase64Url } from '@asterism/bytes/encoding';
import { isGeneration, parseGeneration } from './generation.ts';
import { badUri, parseUri } from './uri-query.ts';

/** Storage that goes with the cluster KMS: derived keys need none. */
export const NO_STORE_URI = 'storage://no-store';

const BASE = 'kms://cluster-kms';
const NAMES = ['key', 'salt', 'generation', 'measurementSecret'];
const MEASUREMENT_SECRET_BYTES = 32;

/** Key and salt of a cluster's master secret. */
export interface ClusterKey {
  /** 16 bytes or more. */
  readonly key: Uint8Array;
  /** 32 bytes or more. */
  readonly salt: Uint8Array;
  /** Which master secret this is; without it the first. */
  readonly generation?: number;
  /** 32 bytes: where it is no longer what the master secret gives, because that was replaced. */
  readonly measurementSecret?: Uint8Array;
}

/**
 * `kms://cluster-kms?key=...&salt=...` with URL-safe padded base64 (wire-facts 4.1), after a rotation with
 * `&generation=...&measurementSecret=...`. It is as secret as the key.
 */
export function renderClusterKmsUri({ key, salt, generation = 1, measurementSecret }: ClusterKey): string {
  if (!isGeneration(generation)) throw new RangeError('a generation is a number from 1');
  let uri = `${BASE}?key=${toBase64Url(key)}&salt=${toBase64Url(salt)}`;
  if (generation > 1) uri += `&generation=${generation}`;
  if (measurementSecret !== undefined) uri += `&measurementSecret=${toBase64Url(measurementSecret)}`;
  return uri;
}

/** @throws ParseError (ERR_KMS_URI); messages never hold what was read */
export function parseClusterKmsUri(uri: string): ClusterKey {
  const bad = (why: string) => badUri(`not a URI of the cluster KMS: ${why}`);
  if (!uri.startsWith(`${BASE}?`)) throw bad(`it must begin with ${BASE}?`);
  const { parameters } = parseUri(uri);
  if ([...parameters.keys()].some((name) => !NAMES.includes(name)))
    throw bad(`only ${NAMES.join(', ')} are parameters`);
  const decode = (name: string) => {
    try {
      return fromBase64Url(parameters.get(name) ?? '');
    } catch {
      throw bad(`${name} is not URL-safe base64`);
    }
  };
  const atLeast = (name: string, minimum: number) => {
    const bytes = decode(name);
    if (bytes.length < minimum) throw bad(`${name} has fewer than ${minimum} bytes`);
    return bytes;
  };
  const generation = parseGeneration(parameters.get('generation') ?? '1');
  if (generation === undefined) throw bad('generation is no number from 1');
  const read = { key: atLeast('key', 16), salt: atLeast('salt', 32), ...(generation > 1 && { generation }) };
  if (!parameters.has('measurementSecret')) return read;
  const measurementSecret = decode('measurementSecret');
  if (measurementSecret.length !== MEASUREMENT_SECRET_BYTES)
    throw bad(`measurementSecret has not ${MEASUREMENT_SECRET_BYTES} bytes`);
  return { ...read, measurementSecret };
}
