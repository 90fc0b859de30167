import { concat, equal } from '@asterism/bytes/bytes';
import { toBase64Url, toHex } from '@asterism/bytes/encoding';
import { type Check, ParseError, VerificationError } from '@asterism/errors/errors';
import { parseEventLog, replay, SHA256 } from '@asterism/eventlog/event-log';
import { Curve } from '@asterism/tpm/constants';
import {
  type PublicArea,
  parsePublicArea,
  parseQuoteAttest,
  parseSignature,
  type Signature,
} from '@asterism/tpm/structures';
import { akTemplate, isOfTemplate } from '@asterism/tpm/template';
import { type Binding, qualifyingData } from './binding.ts';
import type { DocumentQuote, VtpmDocument } from './parse.ts';

/** What is true of the document whatever the policy. */
export interface VerifiedDocument {
  readonly checks: readonly Check[];
  /** SHA-256 PCRs of the quote whose signature was verified. */
  readonly pcrs: ReadonlyMap<number, Uint8Array>;
  readonly userData: Uint8Array;
  readonly attestationKeyId: string;
}

const NONCE_BYTES = 32;

/**
 * Checks everything that can be checked without policy: that the attestation key is a restricted signing key, that
 * it signed the SHA-256 quote, that the quote is over this nonce and user data and over the listed PCR values, and
 * that the event log leads to those values. Whose key it is, is not proven: any key of this form passes.
 *
 * @param nonce the verifier's own, 32 bytes
 * @throws ParseError | VerificationError
 */
export async function verifyDocument(
  document: VtpmDocument,
  nonce: Uint8Array,
  binding: Binding,
): Promise<VerifiedDocument> {
  const checks: Check[] = [];
  const passed = (name: string, detail: string) => checks.push({ name, outcome: 'passed', detail });
  const failed = (name: string, code: string, detail: string): never => {
    checks.push({ name, outcome: 'failed', detail });
    throw new VerificationError(code, `the evidence is false: ${detail}`, { checks });
  };

  if (nonce.length !== NONCE_BYTES) throw new RangeError(`a nonce of ${nonce.length} bytes`);
  const ak = parsePublicArea(document.akPub);
  // The exact template, so that one key has one public area and so one name: attributes beyond those of a restricted
  // signing key, or another name algorithm, are not covered by the quote's signature.
  if (!(['ecc-p256', 'rsa-2048'] as const).some((type) => isOfTemplate(ak, akTemplate(type)))) {
    failed('ak-attributes', 'ERR_AK_ATTRIBUTES', 'the attestation key is no restricted signing key of a TPM');
  }
  passed('ak-attributes', 'restricted signing key that cannot leave its TPM');

  // The quote that is verified is the one whose PCRs are compared: exactly one of the SHA-256 bank, no other counts.
  const candidates = document.quotes.filter((quote) => quote.hash === SHA256);
  if (candidates.length !== 1) {
    failed(
      'quote-bank',
      'ERR_QUOTE_BANK',
      `${candidates.length} quotes of the SHA-256 bank, exactly 1 is needed`,
    );
  }
  const quote = candidates[0]!;
  const attest = parseQuoteAttest(quote.attest);
  const selection = attest.selections[0];
  if (attest.selections.length !== 1 || selection?.hash !== SHA256) {
    failed('quote-bank', 'ERR_QUOTE_BANK', 'what the TPM quoted is not the SHA-256 bank alone');
  }
  passed('quote-bank', 'SHA-256');

  if (!(await signatureHolds(ak, quote))) {
    failed(
      'quote-signature',
      'ERR_QUOTE_SIGNATURE',
      'the signature of the quote is not by the attestation key',
    );
  }
  passed(
    'quote-signature',
    ak.key.type === 'ecc' ? 'ECDSA P-256, SHA-256' : `RSASSA ${ak.key.bits}, SHA-256`,
  );

  const expected = await qualifyingData(binding, document.userData, nonce, document.instanceInfo);
  if (!equal(attest.extraData, expected)) {
    failed('quote-nonce', 'ERR_QUOTE_NONCE', 'the quote was made for another nonce or other user data');
  }
  passed('quote-nonce', 'made for this nonce and this user data');

  await verifyPcrs(quote, selection!.pcrs, attest.pcrDigest, failed);
  passed('quote-pcrs', `${selection!.pcrs.length} PCR values are the quoted ones`);

  if (document.eventLog.length === 0) {
    checks.push({ name: 'event-log', outcome: 'warning', detail: 'the machine sent none' });
  } else {
    const replayed = await replay(parseEventLog(document.eventLog), SHA256);
    for (const [pcr, value] of replayed) {
      if (!equal(quote.pcrs.get(pcr) ?? new Uint8Array(), value)) {
        failed('event-log', 'ERR_EVENT_LOG', `the event log does not lead to the quoted value of PCR ${pcr}`);
      }
    }
    passed('event-log', `replays to ${replayed.size} quoted PCRs`);
  }
  const id = toHex(new Uint8Array(await crypto.subtle.digest('SHA-256', new Uint8Array(document.akPub))));
  return { checks, pcrs: quote.pcrs, userData: document.userData, attestationKeyId: id };
}

async function verifyPcrs(
  quote: DocumentQuote,
  quoted: readonly number[],
  pcrDigest: Uint8Array,
  failed: (name: string, code: string, detail: string) => never,
): Promise<void> {
  const listed = [...quote.pcrs.keys()].sort((a, b) => a - b);
  if (quoted.length === 0 || listed.length !== quoted.length || listed.some((pcr, i) => pcr !== quoted[i])) {
    failed('quote-pcrs', 'ERR_QUOTE_PCRS', 'the listed PCRs are not the quoted ones');
  }
  const values = listed.map((pcr) => quote.pcrs.get(pcr)!);
  if (values.some((value) => value.length !== 32))
    failed('quote-pcrs', 'ERR_QUOTE_PCRS', 'a PCR value is not 32 bytes');
  const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', new Uint8Array(concat(...values))));
  if (!equal(digest, pcrDigest))
    failed('quote-pcrs', 'ERR_QUOTE_PCRS', 'the listed PCR values are not the quoted ones');
}

async function signatureHolds(ak: PublicArea, quote: DocumentQuote): Promise<boolean> {
  const signature = parseSignature(quote.signature);
  if (signature.hash !== SHA256) return false;
  const key = await importKey(ak);
  const raw = signatureBytes(signature, ak);
  if (raw === undefined) return false;
  const algorithm = ak.key.type === 'ecc' ? { name: 'ECDSA', hash: 'SHA-256' } : 'RSASSA-PKCS1-v1_5';
  return crypto.subtle.verify(algorithm, key, raw, new Uint8Array(quote.attest));
}

/** WebCrypto takes ECDSA as r || s, 32 bytes each; a TPM may leave leading zeros out. */
function signatureBytes(signature: Signature, ak: PublicArea): Uint8Array<ArrayBuffer> | undefined {
  if (signature.scheme === 'rsassa') {
    return ak.key.type === 'rsa' ? new Uint8Array(signature.signature) : undefined;
  }
  const r = pad32(signature.r);
  const s = pad32(signature.s);
  if (ak.key.type !== 'ecc' || r === undefined || s === undefined) return undefined;
  return new Uint8Array(concat(r, s));
}

function pad32(bytes: Uint8Array): Uint8Array | undefined {
  if (bytes.length > 32) return undefined;
  const padded = new Uint8Array(32);
  padded.set(bytes, 32 - bytes.length);
  return padded;
}

function importKey(ak: PublicArea): Promise<CryptoKey> {
  const url = (bytes: Uint8Array) => toBase64Url(bytes).replaceAll('=', '');
  if (ak.key.type === 'ecc') {
    const [x, y] = [pad32(ak.key.x), pad32(ak.key.y)];
    if (ak.key.curve !== Curve.NIST_P256 || x === undefined || y === undefined) {
      throw new ParseError('the attestation key is on another curve than P-256');
    }
    const jwk = { kty: 'EC', crv: 'P-256', x: url(x), y: url(y) };
    return imported(jwk, { name: 'ECDSA', namedCurve: 'P-256' });
  }
  if (ak.key.bits < 2048) throw new ParseError(`the attestation key has only ${ak.key.bits} bits`);
  const exponent = new Uint8Array(4);
  new DataView(exponent.buffer).setUint32(0, ak.key.exponent);
  const jwk = {
    kty: 'RSA',
    n: url(ak.key.modulus),
    e: url(exponent.subarray(exponent.findIndex((b) => b !== 0))),
  };
  return imported(jwk, { name: 'RSASSA-PKCS1-v1_5', hash: 'SHA-256' });
}

async function imported(
  jwk: JsonWebKey,
  algorithm: EcKeyImportParams | RsaHashedImportParams,
): Promise<CryptoKey> {
  try {
    return await crypto.subtle.importKey('jwk', jwk, algorithm, false, ['verify']);
  } catch (cause) {
    throw new ParseError('the attestation key is no valid public key', { cause });
  }
}
