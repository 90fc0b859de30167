import { createCipheriv, createDecipheriv } from 'node:crypto';
import { bytes, enumeration, integer, optional, required, structure, structureOf, text } from './items.ts';
import { type Asked, answerTo, type Script } from './scripted-server.fixture.ts';
import { ALGORITHM_AES, MODE, OPERATION, REASON, STATE_ACTIVE, TAG } from './tags.ts';
import type { Item } from './ttlv.ts';

export const KEY_ID = 'the-key';
export const KEY_NAME = 'kek';

/**
 * A server of KMIP 1.4 with one key, of AES-GCM or of AES Key Wrap (RFC 3394). The mathematics is OpenSSL's; the
 * messages are of our own codec, so it proves nothing about real servers.
 */
export function honestScript(kek: Uint8Array, mode?: 'key wrap'): Script {
  return (asked) => {
    try {
      return answerTo(asked, payloadFor(asked, kek, mode));
    } catch {
      return refusal(asked, REASON.cryptographicFailure, 'CRYPTO');
    }
  };
}

export function refusal(asked: Asked, reason: number, message: string): Uint8Array {
  return answerTo(asked, [], [enumeration(TAG.resultReason, reason), text(TAG.resultMessage, message)]);
}

function payloadFor({ operation, payload }: Asked, kek: Uint8Array, mode: 'key wrap' | undefined): Item[] {
  const id = text(TAG.uniqueIdentifier, KEY_ID);
  switch (operation) {
    case OPERATION.discoverVersions:
      return [...payload.value];
    case OPERATION.locate: {
      const name = payload.value.find((item) => JSON.stringify(item).includes(`"value":"${KEY_NAME}"`));
      return name === undefined ? [] : [id];
    }
    case OPERATION.getAttributes:
      if (required(payload, TAG.uniqueIdentifier, 'textString') !== KEY_ID) throw new Error('no such key');
      return [id, ...attributes(mode)];
    case OPERATION.encrypt:
      return [id, ...encrypted(payload, kek)];
    default:
      return [id, bytes(TAG.data, decrypted(payload, kek))];
  }
}

function attributes(mode: 'key wrap' | undefined): Item[] {
  const attribute = (name: string, value: Item) =>
    structure(TAG.attribute, text(TAG.attributeName, name), { ...value, tag: TAG.attributeValue });
  const parameters = structure(TAG.attributeValue, enumeration(TAG.blockCipherMode, MODE.nistKeyWrap));
  return [
    attribute('State', enumeration(0, STATE_ACTIVE)),
    attribute('Cryptographic Algorithm', enumeration(0, ALGORITHM_AES)),
    attribute('Cryptographic Length', integer(0, 256)),
    attribute('Cryptographic Usage Mask', integer(0, 12)),
    ...(mode === undefined ? [] : [attribute('Cryptographic Parameters', parameters)]),
  ];
}

type Payload = Asked['payload'];
const isKeyWrap = (payload: Payload) =>
  required(structureOf(payload, TAG.cryptographicParameters), TAG.blockCipherMode, 'enumeration') ===
  MODE.nistKeyWrap;
/** RFC 3394 section 2.2.3.1. */
const KEY_WRAP_IV = new Uint8Array(8).fill(0xa6);

function encrypted(payload: Payload, kek: Uint8Array): Item[] {
  const data = required(payload, TAG.data, 'byteString');
  if (isKeyWrap(payload)) {
    const cipher = createCipheriv('id-aes256-wrap', kek, KEY_WRAP_IV);
    return [bytes(TAG.data, Buffer.concat([cipher.update(data), cipher.final()]))];
  }
  const cipher = createCipheriv('aes-256-gcm', kek, required(payload, TAG.ivCounterNonce, 'byteString'));
  cipher.setAAD(
    optional(payload, TAG.authenticatedEncryptionAdditionalData, 'byteString') ?? new Uint8Array(),
  );
  const ciphertext = Buffer.concat([cipher.update(data), cipher.final()]);
  return [bytes(TAG.data, ciphertext), bytes(TAG.authenticatedEncryptionTag, cipher.getAuthTag())];
}

function decrypted(payload: Payload, kek: Uint8Array): Uint8Array {
  const data = required(payload, TAG.data, 'byteString');
  if (isKeyWrap(payload)) {
    const decipher = createDecipheriv('id-aes256-wrap', kek, KEY_WRAP_IV);
    return Buffer.concat([decipher.update(data), decipher.final()]);
  }
  const decipher = createDecipheriv('aes-256-gcm', kek, required(payload, TAG.ivCounterNonce, 'byteString'));
  decipher.setAAD(
    optional(payload, TAG.authenticatedEncryptionAdditionalData, 'byteString') ?? new Uint8Array(),
  );
  decipher.setAuthTag(required(payload, TAG.authenticatedEncryptionTag, 'byteString'));
  return Buffer.concat([decipher.update(data), decipher.final()]);
}
