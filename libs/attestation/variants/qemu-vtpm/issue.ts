import { open } from 'node:fs/promises';
import { concat, equal } from '@asterism/bytes/bytes';
import { toBase64, toUtf8 } from '@asterism/bytes/encoding';
import { AsterismError, BusyError } from '@asterism/errors/errors';
import { provideAk } from '@asterism/tpm/ak';
import { AK_HANDLE, Alg } from '@asterism/tpm/constants';
import { parseQuoteAttest } from '@asterism/tpm/structures';
import type { AkType } from '@asterism/tpm/template';
import { withTpm } from '@asterism/tpm/with-tpm';
import type { Issuer } from '../../types.ts';
import { VARIANTS } from '../../variants.ts';
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
        return await issueDocument(options, userData, nonce, signal);
      } finally {
        pending--;
      }
    },
  };
}

async function issueDocument(
  options: QemuVtpmIssuerOptions,
  userData: Uint8Array,
  nonce: Uint8Array,
  signal: AbortSignal | undefined,
): Promise<Uint8Array> {
  const eventLog =
    options.eventLogPath === undefined ? new Uint8Array() : await readEventLog(options.eventLogPath);
  const extraData = await qualifyingData(options.binding ?? 'v2.6', userData, nonce, undefined);
  const selection = [{ hash: Alg.SHA256, pcrs: ALL_PCRS }];
  const { ak, quote, pcrs } = await withTpm(options.tpmAddress, async (tpm) => {
    const ak = await provideAk(tpm, options.akType ?? 'ecc-p256');
    // Values and quote are several commands: where an extend falls between them, both are taken again.
    for (let attempt = 1; attempt <= ATTEMPTS; attempt++) {
      signal?.throwIfAborted();
      const pcrs = await tpm.readPcrs(ALL_PCRS);
      const quote = await tpm.quote(AK_HANDLE, extraData, selection);
      const { pcrDigest } = parseQuoteAttest(quote.attest);
      if (equal(await sha256(...ALL_PCRS.map((pcr) => pcrs.get(pcr)!)), pcrDigest))
        return { ak, quote, pcrs };
    }
    throw new AsterismError('ERR_PCRS_CHANGING', 'PCRs keep changing while they are quoted');
  });
  const document = toUtf8(
    JSON.stringify({
      Attestation: {
        ak_pub: toBase64(ak),
        quotes: [
          {
            quote: toBase64(quote.attest),
            raw_sig: toBase64(quote.signature),
            pcrs: {
              hash: Alg.SHA256,
              pcrs: Object.fromEntries([...pcrs].map(([index, value]) => [String(index), toBase64(value)])),
            },
          },
        ],
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
