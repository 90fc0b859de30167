import { ParseError } from '@asterism/errors/errors';
import { makeCertificate } from './certificate.ts';
import { newIdentity } from './identity.ts';
import { commonName, nonceFromName } from './nonce.ts';
import { parseCertificate } from './parse-certificate.ts';

const identity = newIdentity();
const document = new TextEncoder().encode('{"Attestation":null}');

/** What peers choose: the certificate, and the name that carries the server's nonce. */
export const name = 'atls/certificate';

export const seeds = [
  makeCertificate({ ...identity, now: 0 }),
  makeCertificate({ ...identity, now: 0, attestation: { oid: '1.3.9900.5.1', document } }),
  commonName(Buffer.alloc(32).toString('base64')),
];

export function run(input: Uint8Array): void {
  for (const parse of [parseCertificate, nonceFromName]) {
    try {
      parse(input);
    } catch (error) {
      if (!(error instanceof ParseError)) throw error;
    }
  }
}
