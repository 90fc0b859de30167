import { BoundedCache } from '@asterism/bytes/bounded-cache';
import { concat } from '@asterism/bytes/bytes';
import { toBase64Url, toHex } from '@asterism/bytes/encoding';
import { ParseError } from '@asterism/errors/errors';
import { ObjectAttribute as A, Alg, Handle } from '@asterism/tpm/constants';
import { type PublicArea, parsePublicArea } from '@asterism/tpm/structures';
import { AK_ATTRIBUTES, akTemplate, isOfTemplate } from '@asterism/tpm/template';

/** An attestation key whose form was judged, ready to verify with. */
export interface AttestationKey {
  readonly type: 'ecc' | 'rsa';
  readonly key: CryptoKey;
  /** Hex SHA-256 of the public area: the machine's name in verdicts and lists. */
  readonly id: string;
  /** Qualified names (Part 1, section 16) that the key has as a primary object: in quotes the TPM states one. */
  readonly qualifiedNames: readonly Uint8Array[];
}

const KEYS_KEPT = 1024;

/**
 * What makes a signature over TPM_GENERATED data mean "the TPM says so": the key was made inside of a TPM
 * (SENSITIVE_DATA_ORIGIN), cannot leave it (FIXED_TPM, FIXED_PARENT), and signs nothing that merely looks as if the
 * TPM had made it (RESTRICTED).
 */
const REQUIRED = A.FIXED_TPM | A.FIXED_PARENT | A.SENSITIVE_DATA_ORIGIN | A.RESTRICTED | A.SIGN;

const sha256 = async (...parts: Uint8Array[]): Promise<Uint8Array> =>
  new Uint8Array(await crypto.subtle.digest('SHA-256', new Uint8Array(concat(...parts))));

/** Whether a public area is that of a restricted signing key of a supported type, never to leave its TPM. */
export function isAttestationKey(area: PublicArea): boolean {
  if ((area.attributes & REQUIRED) !== REQUIRED || (area.attributes & A.DECRYPT) !== 0) return false;
  // Keys of others differ in how they are authorised (with or without NO_DA, by policy), which proves nothing here.
  const comparable = { ...area, attributes: AK_ATTRIBUTES, authPolicy: new Uint8Array() };
  return (['ecc-p256', 'rsa-2048'] as const).some((type) => isOfTemplate(comparable, akTemplate(type)));
}

/** Reads attestation keys, and remembers those it has seen: importing one costs more than verifying with it. */
export class AttestationKeys {
  readonly #seen = new BoundedCache<AttestationKey>(KEYS_KEPT);

  /**
   * @param publicArea TPMT_PUBLIC
   * @returns undefined where it is no attestation key
   * @throws ParseError
   */
  async read(publicArea: Uint8Array): Promise<AttestationKey | undefined> {
    const id = toHex(publicArea);
    const seen = this.#seen.get(id);
    if (seen !== undefined) return seen;
    const area = parsePublicArea(publicArea);
    if (!isAttestationKey(area)) return undefined;
    const key = await importAttestationKey(publicArea, area);
    this.#seen.set(id, key);
    return key;
  }
}

async function importAttestationKey(publicArea: Uint8Array, area: PublicArea): Promise<AttestationKey> {
  const id = toHex(await sha256(publicArea));
  const qualifiedNames = await Promise.all(
    [Handle.OWNER, Handle.ENDORSEMENT].map((hierarchy) => qualifiedName(publicArea, hierarchy)),
  );
  return { type: area.key.type, key: await importKey(area), id, qualifiedNames };
}

/** Qualified name of a primary key with a SHA-256 name: the hash of its hierarchy's handle and its name. */
export async function qualifiedName(publicArea: Uint8Array, hierarchy: number): Promise<Uint8Array> {
  const parent = new Uint8Array(4);
  new DataView(parent.buffer).setUint32(0, hierarchy);
  const hashAlgorithm = Uint8Array.of(0, Alg.SHA256);
  const name = concat(hashAlgorithm, await sha256(publicArea));
  return concat(hashAlgorithm, await sha256(parent, name));
}

async function importKey({ key }: PublicArea): Promise<CryptoKey> {
  const url = (bytes: Uint8Array) => toBase64Url(bytes).replaceAll('=', '');
  try {
    if (key.type === 'rsa') {
      const jwk = { kty: 'RSA', n: url(key.modulus), e: 'AQAB' };
      const algorithm = { name: 'RSASSA-PKCS1-v1_5', hash: 'SHA-256' };
      return await crypto.subtle.importKey('jwk', jwk, algorithm, false, ['verify']);
    }
    const jwk = { kty: 'EC', crv: 'P-256', x: url(padTo32(key.x)), y: url(padTo32(key.y)) };
    const algorithm = { name: 'ECDSA', namedCurve: 'P-256' };
    return await crypto.subtle.importKey('jwk', jwk, algorithm, false, ['verify']);
  } catch (cause) {
    throw new ParseError('the attestation key is no valid public key', { cause });
  }
}

/**
 * A TPM may leave out the leading zeros of a number that WebCrypto wants as 32 bytes.
 * @throws ParseError it is longer
 */
export function padTo32(bytes: Uint8Array): Uint8Array {
  if (bytes.length > 32) throw new ParseError(`a P-256 number of ${bytes.length} bytes`);
  const padded = new Uint8Array(32);
  padded.set(bytes, 32 - bytes.length);
  return padded;
}
