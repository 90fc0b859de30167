import { fromBase64, fromUtf8 } from '@asterism/bytes/encoding';
import { parseJson } from '@asterism/bytes/json';
import { ParseError } from '@asterism/errors/errors';

/** Largest document taken: what fits a TLS certificate message of every peer. */
export const MAX_DOCUMENT_BYTES = 60_000;
const MAX_QUOTES = 4;

export interface DocumentQuote {
  /** TPMS_ATTEST. */
  readonly attest: Uint8Array;
  /** TPMT_SIGNATURE. */
  readonly signature: Uint8Array;
  /** TPM_ALG_ID of the bank whose values follow. */
  readonly hash: number;
  readonly pcrs: ReadonlyMap<number, Uint8Array>;
}

/** The v2.6 vTPM document, decoded but not judged. */
export interface VtpmDocument {
  /** TPMT_PUBLIC of the attestation key. */
  readonly akPub: Uint8Array;
  readonly quotes: readonly DocumentQuote[];
  readonly eventLog: Uint8Array;
  readonly instanceInfo: Uint8Array | undefined;
  readonly userData: Uint8Array;
}

/**
 * Decodes the JSON document: keys as Go's encoding/json writes them, byte strings in standard base64. Fields that are
 * known but not used here (ak_cert, canonical_event_log, ...) may be there; unknown and doubled ones may not.
 *
 * @throws ParseError
 */
export function parseDocument(bytes: Uint8Array): VtpmDocument {
  if (bytes.length > MAX_DOCUMENT_BYTES)
    throw new ParseError(`attestation document of ${bytes.length} bytes`);
  const top = object(parseJson(fromUtf8(bytes)), 'document', ['Attestation', 'InstanceInfo', 'UserData']);
  const attestation = object(top.Attestation, 'Attestation', [
    'ak_pub',
    'quotes',
    'event_log',
    'instance_info',
    'canonical_event_log',
    'ak_cert',
    'intermediate_certs',
    'TeeAttestation',
  ]);
  if ((attestation.TeeAttestation ?? null) !== null) {
    throw new ParseError('TeeAttestation has a value, which this variant does not know');
  }
  const quotes = attestation.quotes;
  if (!Array.isArray(quotes) || quotes.length === 0 || quotes.length > MAX_QUOTES) {
    throw new ParseError(`there must be 1 to ${MAX_QUOTES} quotes`);
  }
  const instanceInfo = top.InstanceInfo ?? null;
  return {
    akPub: byteString(attestation.ak_pub, 'ak_pub'),
    quotes: quotes.map(parseQuote),
    eventLog: byteString(attestation.event_log ?? '', 'event_log'),
    instanceInfo: instanceInfo === null ? undefined : byteString(instanceInfo, 'InstanceInfo'),
    userData: byteString(top.UserData, 'UserData'),
  };
}

function parseQuote(value: unknown): DocumentQuote {
  const quote = object(value, 'quote', ['quote', 'raw_sig', 'pcrs']);
  const pcrs = object(quote.pcrs, 'pcrs', ['hash', 'pcrs']);
  const hash = pcrs.hash;
  if (typeof hash !== 'number' || !Number.isInteger(hash))
    throw new ParseError('the hash of the PCRs is no number');
  const values = new Map<number, Uint8Array>();
  for (const [index, digest] of Object.entries(object(pcrs.pcrs, 'PCR values'))) {
    if (!/^(0|[1-9][0-9]?)$/.test(index) || Number(index) > 23)
      throw new ParseError(`'${index}' is no PCR index`);
    values.set(Number(index), byteString(digest, `PCR ${index}`));
  }
  return {
    attest: byteString(quote.quote, 'quote'),
    signature: byteString(quote.raw_sig, 'raw_sig'),
    hash,
    pcrs: values,
  };
}

function object(value: unknown, what: string, known?: readonly string[]): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw new ParseError(`${what} is no object`);
  const unknown = known && Object.keys(value).find((key) => !known.includes(key));
  if (unknown !== undefined)
    throw new ParseError(`${what} has the unknown field ${JSON.stringify(unknown.slice(0, 64))}`);
  return value as Record<string, unknown>;
}

function byteString(value: unknown, what: string): Uint8Array {
  if (typeof value !== 'string') throw new ParseError(`${what} is no base64 text`);
  try {
    return fromBase64(value);
  } catch (cause) {
    throw new ParseError(`${what} is not standard base64`, { cause });
  }
}
