import { open } from 'node:fs/promises';
import { concat, equal } from '@asterism/bytes/bytes';
import { toBase64, toUtf8 } from '@asterism/bytes/encoding';
import { AsterismError, BusyError } from '@asterism/errors/errors';
import { provideAk } from '@asterism/tpm/ak';
import { AK_HANDLE, Alg, Handle } from '@asterism/tpm/constants';
import { TpmError } from '@asterism/tpm/response-code';
import { parseQuoteAttest } from '@asterism/tpm/structures';
import type { AkType } from '@asterism/tpm/template';
import type { Tpm } from '@asterism/tpm/tpm';
import { withTpm } from '@asterism/tpm/with-tpm';
import type { Issuer } from '../../types.ts';
import { VARIANTS } from '../../variants.ts';
import { qualifiedName } from './attestation-key.ts';
import { type Binding, qualifyingData } from './binding.ts';
import { MAX_DOCUMENT_BYTES } from './parse.ts';

export interface QemuVtpmIssuerOptions {
  /** `swtpm:/path` or `device:/path`. */
  readonly tpmAddress: string;
  /** File with the TCG event log; a machine without one sends none. */
  readonly eventLogPath: string | undefined;
  /** Default `ecc-p256`. */
  readonly akType?: AkType;
  readonly binding?: Binding;
  /** Documents being made or waiting for the TPM; more are refused at once. Default 64. */
  readonly maxPending?: number;
}

const ALL_PCRS = Array.from({ length: 24 }, (_, i) => i);
const ATTEMPTS = 3;

const sha256 = async (...parts: Uint8Array[]): Promise<Uint8Array> =>
  new Uint8Array(await crypto.subtle.digest('SHA-256', new Uint8Array(concat(...parts))));

/** Issues documents with one quote over all SHA-256 PCRs. */
export function createQemuVtpmIssuer(options: QemuVtpmIssuerOptions): Issuer {
  const machine = new QuotingMachine(options.tpmAddress, options.akType ?? 'ecc-p256');
  let pending = 0;
  return {
    variant: 'qemu-vtpm',
    oid: VARIANTS['qemu-vtpm'].oid,
    async issue(userData, nonce, signal) {
      if (pending >= (options.maxPending ?? 64)) {
        throw new BusyError(
          'ERR_ISSUER_BUSY',
          'too many attestation requests wait for the TPM; try again later',
        );
      }
      pending++;
      try {
        const path = options.eventLogPath;
        const eventLog = path === undefined ? new Uint8Array() : await readEventLog(path);
        const extraData = await qualifyingData(options.binding ?? 'v2.6', userData, nonce, undefined);
        return render(await machine.quote(extraData, signal), eventLog, userData);
      } finally {
        pending--;
      }
    },
  };
}

interface Quoted {
  /** TPMT_PUBLIC of the attestation key. */
  readonly ak: Uint8Array;
  readonly attest: Uint8Array;
  readonly signature: Uint8Array;
  readonly pcrs: ReadonlyMap<number, Uint8Array>;
}

/** What the TPM said of itself, and what a quote must say for that still to be true. */
interface Known {
  readonly ak: Uint8Array;
  readonly akName: Uint8Array;
  readonly pcrs: ReadonlyMap<number, Uint8Array>;
  readonly pcrDigest: Uint8Array;
}

/**
 * Quotes with the machine's attestation key. Key and PCR values are remembered: a quote states the name of the key
 * and the digest of the values, and where these are no longer the remembered ones, both are asked for again.
 */
class QuotingMachine {
  readonly #address: string;
  readonly #akType: AkType;
  #known: Known | undefined;

  constructor(address: string, akType: AkType) {
    this.#address = address;
    this.#akType = akType;
  }

  quote(extraData: Uint8Array, signal: AbortSignal | undefined): Promise<Quoted> {
    return withTpm(this.#address, async (tpm) => {
      for (let attempt = 1; attempt <= ATTEMPTS; attempt++) {
        signal?.throwIfAborted();
        this.#known ??= await this.#ask(tpm);
        const { ak, akName, pcrs, pcrDigest } = this.#known;
        const quote = await quoteIfKeyExists(tpm, extraData);
        const said = quote && parseQuoteAttest(quote.attest);
        if (quote && said && equal(said.qualifiedSigner, akName) && equal(said.pcrDigest, pcrDigest)) {
          return { ak, pcrs, ...quote };
        }
        this.#known = undefined;
      }
      throw new AsterismError('ERR_PCRS_CHANGING', 'PCRs keep changing while they are quoted');
    });
  }

  async #ask(tpm: Tpm): Promise<Known> {
    const ak = await provideAk(tpm, this.#akType);
    const pcrs = await tpm.readPcrs(ALL_PCRS);
    const akName = await qualifiedName(ak, Handle.OWNER);
    return { ak, akName, pcrs, pcrDigest: await sha256(...ALL_PCRS.map((pcr) => pcrs.get(pcr)!)) };
  }
}

/** Undefined where somebody has removed the key. */
async function quoteIfKeyExists(tpm: Tpm, extraData: Uint8Array) {
  try {
    return await tpm.quote(AK_HANDLE, extraData, [{ hash: Alg.SHA256, pcrs: ALL_PCRS }]);
  } catch (error) {
    if (error instanceof TpmError && error.isNoSuchHandle) return undefined;
    throw error;
  }
}

function render(quoted: Quoted, eventLog: Uint8Array, userData: Uint8Array): Uint8Array {
  const values = [...quoted.pcrs].map(([index, value]) => [String(index), toBase64(value)]);
  const quote = {
    quote: toBase64(quoted.attest),
    raw_sig: toBase64(quoted.signature),
    pcrs: { hash: Alg.SHA256, pcrs: Object.fromEntries(values) },
  };
  const document = toUtf8(
    JSON.stringify({
      Attestation: {
        ak_pub: toBase64(quoted.ak),
        quotes: [quote],
        ...(eventLog.length > 0 && { event_log: toBase64(eventLog) }),
        TeeAttestation: null,
      },
      InstanceInfo: null,
      UserData: toBase64(userData),
    }),
  );
  if (document.length > MAX_DOCUMENT_BYTES) {
    throw new AsterismError(
      'ERR_DOCUMENT_SIZE',
      `the attestation document has ${document.length} bytes; is the event log right?`,
    );
  }
  return document;
}

/** Reads to the end of the file or to where no document could hold the log; the kernel's log states no size. */
async function readEventLog(path: string): Promise<Uint8Array> {
  await using file = await open(path, 'r');
  const buffer = new Uint8Array(MAX_DOCUMENT_BYTES);
  let length = 0;
  while (length < buffer.length) {
    const { bytesRead } = await file.read(buffer, length, buffer.length - length, null);
    if (bytesRead === 0) break;
    length += bytesRead;
  }
  return buffer.subarray(0, length);
}
