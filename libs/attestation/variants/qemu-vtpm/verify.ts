import { concat, equal } from '@asterism/bytes/bytes';
import { type Check, ParseError, VerificationError } from '@asterism/errors/errors';
import { SHA256 } from '@asterism/eventlog/event-log';
import { parseQuoteAttest, parseSignature, type QuoteAttest } from '@asterism/tpm/structures';
import { type AttestationKey, AttestationKeys, padTo32 } from './attestation-key.ts';
import { type Binding, qualifyingData } from './binding.ts';
import type { DocumentQuote, VtpmDocument } from './parse.ts';
import { ReplayedLogs } from './replayed-logs.ts';

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
 */
export class DocumentVerifier {
  readonly #binding: Binding;
  readonly #keys = new AttestationKeys();
  readonly #logs = new ReplayedLogs();

  constructor(binding: Binding) {
    this.#binding = binding;
  }

  /**
   * @param nonce the verifier's own, 32 bytes
   * @throws VerificationError
   */
  async verify(document: VtpmDocument, nonce: Uint8Array): Promise<VerifiedDocument> {
    if (nonce.length !== NONCE_BYTES) throw new RangeError(`a nonce of ${nonce.length} bytes`);
    const report: Report = new Report();
    try {
      return await this.#judge(document, nonce, report);
    } catch (cause) {
      if (!(cause instanceof ParseError)) throw cause;
      // What was found until then is part of the verdict.
      throw report.malformed(cause);
    }
  }

  async #judge(document: VtpmDocument, nonce: Uint8Array, report: Report): Promise<VerifiedDocument> {
    const key = await this.#readKey(document, report);
    const { quote, attest, indexes } = chooseQuote(document, report);
    const [signed, qualifying, pcrDigest] = await Promise.all([
      signatureHolds(key, quote),
      qualifyingData(this.#binding, document.userData, nonce, document.instanceInfo),
      digestOfPcrs(quote, indexes),
    ]);
    report.demand(
      signed,
      'quote-signature',
      key.type === 'ecc' ? 'ECDSA P-256, SHA-256' : 'RSASSA 2048, SHA-256',
      'the signature of the quote is not by the attestation key',
    );
    report.demand(
      key.qualifiedNames.some((name) => equal(name, attest.qualifiedSigner)),
      'ak-name',
      'the signed quote names this public area',
      'the quote names another key, or one that is no primary key of the owner or endorsement hierarchy',
    );
    report.demand(
      equal(attest.extraData, qualifying),
      'quote-nonce',
      'made for this nonce and this user data',
      'the quote was made for another nonce or other user data',
    );
    report.demand(
      pcrDigest !== undefined && equal(pcrDigest, attest.pcrDigest),
      'quote-pcrs',
      `${indexes.length} PCR values are the quoted ones`,
      'the listed PCR values are not the quoted ones',
    );
    await this.#checkEventLog(document.eventLog, quote.pcrs, report);
    const { checks } = report;
    return { checks, pcrs: quote.pcrs, userData: document.userData, attestationKeyId: key.id };
  }

  async #readKey(document: VtpmDocument, report: Report): Promise<AttestationKey> {
    const key = await this.#keys.read(document.akPub);
    report.demand(
      key !== undefined,
      'ak-attributes',
      'restricted signing key that cannot leave its TPM',
      'the attestation key is no restricted signing key of a TPM',
    );
    return key;
  }

  /** Every PCR that the log has events of must be where the log leads; the others are not judged by it. */
  async #checkEventLog(
    log: Uint8Array,
    pcrs: ReadonlyMap<number, Uint8Array>,
    report: Report,
  ): Promise<void> {
    if (log.length === 0) {
      report.warn('event-log', 'the machine sent none');
      return;
    }
    const replayed = await this.#logs.pcrsOf(log);
    const wrong = [...replayed].filter(([pcr, value]) => !equal(pcrs.get(pcr) ?? NOT_QUOTED, value));
    report.demand(
      wrong.length === 0,
      'event-log',
      `replays to ${replayed.size} quoted PCRs`,
      `the event log does not lead to the quoted values of PCR ${wrong.map(([pcr]) => pcr).join(', ')}`,
    );
  }
}

const NOT_QUOTED = new Uint8Array();

/** Collects the checks in the order made; the first that fails ends the verification. */
class Report {
  readonly checks: Check[] = [];

  demand(holds: boolean, name: CheckName, passed: string, failed: string): asserts holds {
    this.checks.push({ name, outcome: holds ? 'passed' : 'failed', detail: holds ? passed : failed });
    if (holds) return;
    throw new VerificationError(ERROR_CODES[name], `the evidence is false: ${failed}`, {
      checks: this.checks,
    });
  }

  /** A structure within the document has not the form that its specification demands. */
  malformed(cause: ParseError): VerificationError {
    this.checks.push({ name: 'form', outcome: 'failed', detail: cause.message });
    return new VerificationError('ERR_EVIDENCE_FORM', `the evidence is malformed: ${cause.message}`, {
      cause,
      checks: this.checks,
    });
  }

  warn(name: CheckName, detail: string): void {
    this.checks.push({ name, outcome: 'warning', detail });
  }
}

const ERROR_CODES = {
  'ak-attributes': 'ERR_AK_ATTRIBUTES',
  'ak-name': 'ERR_AK_NAME',
  'quote-bank': 'ERR_QUOTE_BANK',
  'quote-signature': 'ERR_QUOTE_SIGNATURE',
  'quote-nonce': 'ERR_QUOTE_NONCE',
  'quote-pcrs': 'ERR_QUOTE_PCRS',
  'event-log': 'ERR_EVENT_LOG',
} as const;

type CheckName = keyof typeof ERROR_CODES;

/** The quote that is verified is the one whose PCRs are compared: the only one of the SHA-256 bank. */
function chooseQuote(
  document: VtpmDocument,
  report: Report,
): { quote: DocumentQuote; attest: QuoteAttest; indexes: readonly number[] } {
  const [quote, ...others] = document.quotes.filter(({ hash }) => hash === SHA256);
  const attest = quote === undefined ? undefined : parseQuoteAttest(quote.attest);
  const [selection, ...further] = attest?.selections ?? [];
  report.demand(
    quote !== undefined &&
      others.length === 0 &&
      attest !== undefined &&
      selection?.hash === SHA256 &&
      further.length === 0,
    'quote-bank',
    'SHA-256',
    'there is not exactly one quote of the SHA-256 bank, and of it alone',
  );
  return { quote, attest, indexes: selection.pcrs };
}

/** Undefined where the listed PCRs are not exactly the selected ones. */
async function digestOfPcrs(
  quote: DocumentQuote,
  indexes: readonly number[],
): Promise<Uint8Array | undefined> {
  const values = indexes.map((index) => quote.pcrs.get(index) ?? NOT_QUOTED);
  if (indexes.length === 0 || quote.pcrs.size !== indexes.length) return undefined;
  if (values.some((value) => value.length !== 32)) return undefined;
  return new Uint8Array(await crypto.subtle.digest('SHA-256', new Uint8Array(concat(...values))));
}

async function signatureHolds(attestationKey: AttestationKey, quote: DocumentQuote): Promise<boolean> {
  const { type, key } = attestationKey;
  const signature = parseSignature(quote.signature);
  if (signature.hash !== SHA256) return false;
  if (signature.scheme === 'rsassa') {
    if (type !== 'rsa') return false;
    const raw = new Uint8Array(signature.signature);
    return crypto.subtle.verify('RSASSA-PKCS1-v1_5', key, raw, new Uint8Array(quote.attest));
  }
  if (type !== 'ecc') return false;
  const raw = new Uint8Array(concat(padTo32(signature.r), padTo32(signature.s)));
  return crypto.subtle.verify({ name: 'ECDSA', hash: 'SHA-256' }, key, raw, new Uint8Array(quote.attest));
}
