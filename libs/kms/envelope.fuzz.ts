import { toUtf8 } from '@asterism/bytes/encoding';
import { parseEnvelope, renderEnvelope } from './envelope.ts';

export const name = 'kms/envelope';

const fields = (length: number) => ({
  ciphertext: new Uint8Array(16 + length).fill(0xfb),
  iv: new Uint8Array(12).fill(1),
  wrapped: { mechanism: 1, keyId: 'arn:aws:kms:x:1:key/1', wrappedKey: new Uint8Array(60).fill(2) },
});

export const seeds = [
  renderEnvelope({
    binding: { dekId: 'key-measurementSecret', clusterId: '0a'.repeat(32), generation: 12 },
    ...fields(32),
  }),
  renderEnvelope({ binding: undefined, ...fields(96) }),
  toUtf8(
    '{"ciphertext":"AQEBAQEBAQEBAQEBAQEBAQEB","iv":"AgICAgICAgICAgIC","key_info":{"key_id":"\\u00e9","wrapped_key":"AQ=="}}',
  ),
];

/** What is read is written, and read again, as the same. */
export function run(input: Uint8Array): void {
  const written = renderEnvelope(parseEnvelope(input));
  if (Buffer.compare(renderEnvelope(parseEnvelope(written)), written) !== 0)
    throw new Error('changed on its way');
}
