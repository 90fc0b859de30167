import assert from 'node:assert/strict';
import { equal } from '@asterism/bytes/bytes';
import { toBase64, toUtf8 } from '@asterism/bytes/encoding';
import { VerificationError } from '@asterism/errors/errors';
import { writeEventLog } from '@asterism/eventlog/write';
import { QemuVtpmVerifier } from './verifier.ts';

export const name = 'attestation/qemu-vtpm';

const userData = new Uint8Array(32).fill(1);
const nonce = new Uint8Array(32).fill(2);
const zero = new Uint8Array(32);
const pcrs = new Map([4, 9, 15].map((index) => [index, zero]));
const verifier = new QemuVtpmVerifier({
  measurements: new Map([[15, { expected: zero, warnOnly: true }]]),
});

// Made once by the ForgingTpm of testkit, so that every run starts from the same bytes.
const quote = {
  quote:
    '/1RDR4AYACIAC9KBC92YUB8X+ZY1iW0B9A7ycJ1F97UJY7D5bKpzcdTQACD4GK/Tem3DvJL7RHMQESdw' +
    'BttO+m6QI810aMAjNdIqTQAAAAAAAAABAAAAAAAAAAABAAAAAAAAAAEAAAABAAsDEIIAACAuqauRmNFj' +
    'gAdADNLDvvHMdFuGS3YBGg4bxSGArGRS1A==',
  raw_sig:
    'ABgACwAg0bfvOznyRf5wXvqoYOMsEZGTSPoBBiOKq/3ZIBcX+sYAIJYjh3b2d42bnWWuNuBTXiEh0Jc+' + '862c8dDOmbYwW9+j',
  pcrs: { hash: 11, pcrs: Object.fromEntries([...pcrs].map(([index, value]) => [index, toBase64(value)])) },
};
const attestation = {
  ak_pub:
    'ACMACwAFBHIAAAAQABgACwADABAAIJmDhcDTNppNIrdyWioDPvRmVSWf5jh3XEucj15TdMLOACADqdp4' +
    '0E2/dNLj6Mkhhu7FPzBELjyCw6vf8D9/ILM2cA==',
  quotes: [quote],
  TeeAttestation: null,
};
const rest = { InstanceInfo: null, UserData: toBase64(userData) };
const eventLog = toBase64(writeEventLog([]));

export const seeds = [
  { Attestation: attestation, ...rest },
  { Attestation: { ...attestation, event_log: eventLog }, ...rest },
].map((document) => toUtf8(JSON.stringify(document)));

// Mutants of a document that is refused anyway would test little.
for (const seed of seeds) await verifier.verify(seed, nonce);

/** Whatever is accepted says what the key signed. */
export async function run(input: Uint8Array): Promise<void> {
  try {
    const verdict = await verifier.verify(input, nonce);
    assert.ok(equal(verdict.userData, userData));
    assert.deepEqual([...verdict.pcrs], [...pcrs]);
  } catch (error) {
    if (!(error instanceof VerificationError)) throw error;
  }
}
