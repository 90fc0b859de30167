import type { Reader } from '@asterism/bytes/reader';
import { Reader as ByteReader } from '@asterism/bytes/reader';
import { Writer } from '@asterism/bytes/writer';
import { Alg, DIGEST_SIZE, Tag, TPM_GENERATED } from './constants.ts';

/** TPMS_PCR_SELECTION: which PCRs of one bank. */
export interface PcrSelection {
  /** TPM_ALG_ID of the bank. */
  readonly hash: number;
  /** Indexes, ascending. */
  readonly pcrs: readonly number[];
}

/** TPMS_ATTEST of a quote. */
export interface QuoteAttest {
  readonly qualifiedSigner: Uint8Array;
  /** The caller's qualifying data, at most 64 bytes. */
  readonly extraData: Uint8Array;
  readonly clock: bigint;
  readonly resetCount: number;
  readonly restartCount: number;
  readonly safe: boolean;
  readonly firmwareVersion: bigint;
  readonly selections: readonly PcrSelection[];
  readonly pcrDigest: Uint8Array;
}

export type Signature =
  | { readonly scheme: 'rsassa'; readonly hash: number; readonly signature: Uint8Array }
  | { readonly scheme: 'ecdsa'; readonly hash: number; readonly r: Uint8Array; readonly s: Uint8Array };

/** TPMT_PUBLIC of a key. */
export interface PublicArea {
  readonly nameAlg: number;
  readonly attributes: number;
  readonly authPolicy: Uint8Array;
  /** Signing scheme, TPM_ALG_ID; Alg.NULL where the key leaves it open. */
  readonly scheme: number;
  readonly schemeHash: number;
  readonly key:
    | { readonly type: 'rsa'; readonly bits: number; readonly exponent: number; readonly modulus: Uint8Array }
    | { readonly type: 'ecc'; readonly curve: number; readonly x: Uint8Array; readonly y: Uint8Array };
}

const MAX_BANKS = 16;
const MAX_DIGEST = 64;

function sized(reader: Reader, limit: number, what: string): Uint8Array {
  const length = reader.u16be(`size of ${what}`);
  if (length > limit) reader.fail(`${what} has ${length} bytes, ${limit} are allowed`);
  return reader.bytes(length, what);
}

/** Reads a TPML_PCR_SELECTION (Part 2 section 10.9.7). */
export function readPcrSelections(reader: Reader): PcrSelection[] {
  const count = reader.u32be('number of PCR selections');
  if (count > MAX_BANKS) reader.fail(`${count} PCR selections, ${MAX_BANKS} are allowed`);
  const selections: PcrSelection[] = [];
  for (let i = 0; i < count; i++) {
    const hash = reader.u16be('PCR bank');
    const size = reader.u8('size of PCR bitmap');
    if (size > 4) reader.fail(`PCR bitmap of ${size} bytes`);
    const bitmap = reader.bytes(size, 'PCR bitmap');
    const pcrs: number[] = [];
    for (let pcr = 0; pcr < size * 8; pcr++) if ((bitmap[pcr >> 3]! >> (pcr & 7)) & 1) pcrs.push(pcr);
    selections.push({ hash, pcrs });
  }
  return selections;
}

/** Appends a TPML_PCR_SELECTION with 3-byte bitmaps (24 PCRs). */
export function writePcrSelections(writer: Writer, selections: readonly PcrSelection[]): void {
  writer.u32be(selections.length);
  for (const { hash, pcrs } of selections) {
    const bitmap = new Uint8Array(3);
    for (const pcr of pcrs) {
      if (!Number.isInteger(pcr) || pcr < 0 || pcr > 23) throw new RangeError(`no PCR ${pcr}`);
      bitmap[pcr >> 3]! |= 1 << (pcr & 7);
    }
    writer.u16be(hash).u8(3).bytes(bitmap);
  }
}

/**
 * Parses a TPMS_ATTEST (Part 2 section 10.12.12) that must be a quote.
 * @throws ParseError also where the magic is not TPM_GENERATED or the type is not a quote: such a structure was not
 *   made by the TPM as a quote, whatever its signature says
 */
export function parseQuoteAttest(bytes: Uint8Array): QuoteAttest {
  const reader = new ByteReader(bytes);
  const magic = reader.u32be('magic');
  if (magic !== TPM_GENERATED) reader.fail(`magic 0x${magic.toString(16)} is not TPM_GENERATED`);
  const type = reader.u16be('type');
  if (type !== Tag.ATTEST_QUOTE) reader.fail(`attestation type 0x${type.toString(16)} is not a quote`);
  const qualifiedSigner = sized(reader, MAX_DIGEST + 2, 'qualified signer');
  const extraData = sized(reader, MAX_DIGEST + 2, 'extra data');
  const clock = reader.u64be('clock');
  const resetCount = reader.u32be('reset count');
  const restartCount = reader.u32be('restart count');
  const safe = reader.u8('safe') === 1;
  const firmwareVersion = reader.u64be('firmware version');
  const selections = readPcrSelections(reader);
  const pcrDigest = sized(reader, MAX_DIGEST, 'PCR digest');
  reader.end('TPMS_ATTEST');
  return {
    qualifiedSigner,
    extraData,
    clock,
    resetCount,
    restartCount,
    safe,
    firmwareVersion,
    selections,
    pcrDigest,
  };
}

/** Parses a TPMT_SIGNATURE (Part 2 section 11.3.4) of scheme RSASSA or ECDSA. */
export function parseSignature(bytes: Uint8Array): Signature {
  const reader = new ByteReader(bytes);
  const scheme = reader.u16be('signature scheme');
  const hash = reader.u16be('signature hash');
  if (!DIGEST_SIZE.has(hash)) reader.fail(`signature hash 0x${hash.toString(16)} is not known`);
  let signature: Signature;
  if (scheme === Alg.RSASSA)
    signature = { scheme: 'rsassa', hash, signature: sized(reader, 512, 'RSA signature') };
  else if (scheme === Alg.ECDSA)
    signature = { scheme: 'ecdsa', hash, r: sized(reader, 66, 'r'), s: sized(reader, 66, 's') };
  else return reader.fail(`signature scheme 0x${scheme.toString(16)} is neither RSASSA nor ECDSA`);
  reader.end('TPMT_SIGNATURE');
  return signature;
}

/** Parses a TPMT_PUBLIC (Part 2 section 12.2.4) of an RSA or ECC key without symmetric part. */
export function parsePublicArea(bytes: Uint8Array): PublicArea {
  const reader = new ByteReader(bytes);
  const type = reader.u16be('object type');
  const nameAlg = reader.u16be('name algorithm');
  const attributes = reader.u32be('object attributes');
  const authPolicy = sized(reader, MAX_DIGEST, 'authorisation policy');
  const symmetric = reader.u16be('symmetric algorithm');
  if (symmetric !== Alg.NULL) reader.fail('a key with a symmetric part is no signing key');
  const scheme = reader.u16be('scheme');
  const schemeHash = scheme === Alg.NULL ? Alg.NULL : reader.u16be('scheme hash');
  let key: PublicArea['key'];
  if (type === Alg.RSA) {
    const bits = reader.u16be('key bits');
    const exponent = reader.u32be('exponent') || 65537;
    key = { type: 'rsa', bits, exponent, modulus: sized(reader, 512, 'modulus') };
    if (key.modulus.length * 8 !== bits)
      reader.fail(`modulus of ${key.modulus.length * 8} bits in a ${bits}-bit key`);
  } else if (type === Alg.ECC) {
    const curve = reader.u16be('curve');
    const kdf = reader.u16be('key derivation');
    if (kdf !== Alg.NULL) reader.fail('a key with key derivation is no signing key');
    key = { type: 'ecc', curve, x: sized(reader, 66, 'x'), y: sized(reader, 66, 'y') };
  } else return reader.fail(`object type 0x${type.toString(16)} is neither RSA nor ECC`);
  reader.end('TPMT_PUBLIC');
  return { nameAlg, attributes, authPolicy, scheme, schemeHash, key };
}

/** TPMT_PUBLIC as a template for CreatePrimary, or as it was parsed. */
export function encodePublicArea(area: PublicArea): Uint8Array {
  const writer = new Writer();
  writer
    .u16be(area.key.type === 'rsa' ? Alg.RSA : Alg.ECC)
    .u16be(area.nameAlg)
    .u32be(area.attributes >>> 0);
  writer.u16be(area.authPolicy.length).bytes(area.authPolicy);
  writer.u16be(Alg.NULL).u16be(area.scheme);
  if (area.scheme !== Alg.NULL) writer.u16be(area.schemeHash);
  if (area.key.type === 'rsa') {
    writer.u16be(area.key.bits).u32be(area.key.exponent === 65537 ? 0 : area.key.exponent);
    writer.u16be(area.key.modulus.length).bytes(area.key.modulus);
  } else {
    writer.u16be(area.key.curve).u16be(Alg.NULL);
    writer.u16be(area.key.x.length).bytes(area.key.x).u16be(area.key.y.length).bytes(area.key.y);
  }
  return writer.finish();
}
