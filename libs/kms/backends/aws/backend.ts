import { checkEnvelopeKey, checkUnwrapped } from '../../checks.ts';
import { KmsError } from '../../errors.ts';
import type { Kek, KekStatus, WrappedKey } from '../../kek.ts';
import type { Settings } from '../../settings.ts';
import { call, connectionOptions, guardHttp, INNERMOST } from './connection.ts';

/** As Constellation v2.6 (go-kms-wrapping: AesGcm with a key that KMS.Encrypt wraps). */
const MECHANISM = 1;
/** Of a CiphertextBlob, AWS KMS API reference. */
const MAX_BLOB_BYTES = 6144;
/** The largest answer, of DescribeKey with all its lists, has about 2 KiB; of Encrypt 9 KiB at most. */
const MAX_ANSWER_BYTES = 64 * 1024;
const KEY_ARN = /^arn:[a-z0-9-]{1,32}:kms:[a-z0-9-]{1,32}:\d{12}:key\/[A-Za-z0-9-]{1,64}$/;

/**
 * A symmetric key of AWS KMS. The context goes to AWS as encryption context `{asterism: context}`.
 *
 * The SDK holds the key that is wrapped as text of a request for a while; that cannot be zeroed.
 *
 * @throws KmsError ERR_KMS_SETTINGS
 */
export async function open(settings: Settings): Promise<Kek> {
  const { region, keyName } = settings.parameters;
  const options = connectionOptions(settings, 'KMS');
  const { KMSClient, EncryptCommand, DecryptCommand, DescribeKeyCommand } = await import(
    '@aws-sdk/client-kms'
  );
  const client = new KMSClient(options);
  client.middlewareStack.add(guardHttp('KMS', options, MAX_ANSWER_BYTES), INNERMOST);
  const what = (action: string) => `AWS KMS: kms:${action} with ${keyName} in ${region}`;

  return {
    async wrap(key, context, signal): Promise<WrappedKey> {
      checkEnvelopeKey(key);
      const command = new EncryptCommand({
        KeyId: keyName,
        Plaintext: key,
        EncryptionContext: { asterism: context },
      });
      const answer = await call('KMS', what('Encrypt'), signal, (abortSignal) =>
        client.send(command, { abortSignal }),
      );
      const blob = answer.CiphertextBlob;
      if (!(blob instanceof Uint8Array) || blob.length === 0 || blob.length > MAX_BLOB_BYTES)
        throw new KmsError('ERR_KMS_ANSWER', `${what('Encrypt')}: the answer holds no wrapped key`);
      return { mechanism: MECHANISM, keyId: keyArn(answer.KeyId, what('Encrypt')), wrappedKey: blob };
    },

    async unwrap({ mechanism, wrappedKey }, context, signal): Promise<Uint8Array> {
      if (mechanism !== MECHANISM || wrappedKey.length === 0 || wrappedKey.length > MAX_BLOB_BYTES)
        throw new KmsError('ERR_KMS_UNWRAP', 'the wrapped key is none of AWS KMS: the store was changed');
      // With the key named, AWS refuses what another key wrapped, also one that the caller may use.
      const command = new DecryptCommand({
        KeyId: keyName,
        CiphertextBlob: wrappedKey,
        ...(context !== undefined && { EncryptionContext: { asterism: context } }),
      });
      const { Plaintext } = await call('KMS', what('Decrypt'), signal, (abortSignal) =>
        client.send(command, { abortSignal }),
      );
      if (!(Plaintext instanceof Uint8Array))
        throw new KmsError('ERR_KMS_ANSWER', `${what('Decrypt')}: the answer holds no key`);
      const key = Uint8Array.from(Plaintext);
      Plaintext.fill(0);
      checkUnwrapped(key, 'AWS KMS');
      return key;
    },

    async status(signal): Promise<KekStatus> {
      const command = new DescribeKeyCommand({ KeyId: keyName });
      const { KeyMetadata: key } = await call('KMS', what('DescribeKey'), signal, (abortSignal) =>
        client.send(command, { abortSignal }),
      );
      const keyId = keyArn(key?.Arn, what('DescribeKey'));
      const state = word(key?.KeyState);
      const spec = word(key?.KeySpec);
      const usage = word(key?.KeyUsage);
      return {
        keyId,
        enabled: state === 'Enabled' && spec === 'SYMMETRIC_DEFAULT' && usage === 'ENCRYPT_DECRYPT',
        detail: `${state}, ${spec}, ${usage}, origin ${word(key?.Origin)}`,
      };
    },

    async close(): Promise<void> {
      client.destroy();
    },
  };
}

// The SDK does not check the types of what it takes from an answer.
function keyArn(value: unknown, what: string): string {
  if (typeof value !== 'string' || !KEY_ARN.test(value))
    throw new KmsError('ERR_KMS_ANSWER', `${what}: the answer names no key: check endpoint`);
  return value;
}

/** One of AWS's own words, as it may be shown. */
function word(value: unknown): string {
  return typeof value === 'string' && /^\w{1,64}$/.test(value) ? value : 'unknown';
}
