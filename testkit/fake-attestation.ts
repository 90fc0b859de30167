import { createHash } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import type { Issuer, Verdict, Verifier } from '@asterism/attestation/types';
import { equal } from '@asterism/bytes/bytes';
import { fromBase64, fromUtf8, toBase64, toHex, toUtf8 } from '@asterism/bytes/encoding';
import { ParseError, VerificationError } from '@asterism/errors/errors';

/** Evidence that proves nothing: JSON of user data and nonce. For tests of what carries evidence. */
export interface FakeOptions {
  /** Default 1.3.9900.1, the placeholder OID of v2.6's own tests. */
  readonly oid?: string;
  /** Documents are padded to at least this many bytes. */
  readonly length?: number;
  /** Milliseconds before an answer. */
  readonly delayMs?: number;
  readonly fail?: Error;
  /** Name of the attestation key in the verdict. */
  readonly machine?: string;
}

export function fakeIssuer(options: FakeOptions = {}): Issuer {
  return {
    variant: 'fake',
    oid: options.oid ?? '1.3.9900.1',
    async issue(userData, nonce, signal) {
      if (options.delayMs !== undefined) await delay(options.delayMs, undefined, { signal });
      if (options.fail !== undefined) throw options.fail;
      return fakeDocument(userData, nonce, options);
    },
  };
}

export function fakeDocument(userData: Uint8Array, nonce: Uint8Array, options: FakeOptions = {}): Uint8Array {
  const fields = {
    UserData: toBase64(userData),
    Nonce: toBase64(nonce),
    Machine: options.machine ?? 'machine',
  };
  const bare = JSON.stringify({ ...fields, Padding: '' });
  const padding = 'x'.repeat(Math.max(0, (options.length ?? 0) - bare.length));
  return toUtf8(JSON.stringify({ ...fields, Padding: padding }));
}

export function fakeVerifier(options: FakeOptions = {}): Verifier {
  return {
    variant: 'fake',
    oid: options.oid ?? '1.3.9900.1',
    async verify(document, nonce, signal): Promise<Verdict> {
      if (options.delayMs !== undefined) await delay(options.delayMs, undefined, { signal });
      if (options.fail !== undefined) throw options.fail;
      const { userData, nonce: quoted, machine } = parse(document);
      if (!equal(quoted, nonce))
        throw new VerificationError('ERR_NONCE', 'the document is for another nonce');
      return {
        variant: 'fake',
        userData,
        checks: [{ name: 'nonce', outcome: 'passed', detail: 'equal' }],
        attestationKeyId: toHex(new Uint8Array(createHash('sha256').update(machine).digest())),
        pcrs: new Map(),
      };
    },
  };
}

function parse(document: Uint8Array): { userData: Uint8Array; nonce: Uint8Array; machine: string } {
  let fields: { UserData: string; Nonce: string; Machine?: string };
  try {
    fields = JSON.parse(fromUtf8(document));
    return {
      userData: fromBase64(fields.UserData),
      nonce: fromBase64(fields.Nonce),
      machine: fields.Machine ?? '',
    };
  } catch (cause) {
    throw new ParseError('not a fake document', { cause });
  }
}
