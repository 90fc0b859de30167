import { fromUtf8, toUtf8 } from '@asterism/bytes/encoding';
import { AsterismError, ParseError } from '@asterism/errors/errors';

const MAX_KEYS = 64;
/** Bech32 (BIP 173) of an X25519 key; post-quantum, tag and plugin recipients have another prefix or length. */
const RECIPIENT = /^age1[02-9ac-hj-np-z]{58}$/;
const IDENTITY = /^AGE-SECRET-KEY-1[02-9AC-HJ-NP-Z]{58}$/;

/**
 * Recipients of a text: one a line, lines that begin with # are comments.
 * @param name what to call it in messages
 * @throws ParseError (ERR_RECIPIENT) for other than X25519 recipients; messages do not quote it: it may be an identity
 */
export function parseRecipients(text: string, name: string): string[] {
  return keysOf(
    text,
    name,
    RECIPIENT,
    'an X25519 recipient of age (age1..., 62 characters)',
    'ERR_RECIPIENT',
  );
}

/** X25519 identities of a text, as age-keygen writes it. @throws ParseError (ERR_IDENTITY) */
export function parseIdentities(text: string, name: string): string[] {
  return keysOf(
    text,
    name,
    IDENTITY,
    'an X25519 identity of age (AGE-SECRET-KEY-1..., 74 characters)',
    'ERR_IDENTITY',
  );
}

function keysOf(text: string, name: string, form: RegExp, what: string, code: string): string[] {
  const keys: string[] = [];
  for (const [i, raw] of text.split('\n').entries()) {
    const line = raw.trim();
    if (line === '' || line.startsWith('#')) continue;
    if (!form.test(line))
      throw new ParseError(`${name}, line ${i + 1}: is not ${what}; others are not taken`, { code });
    keys.push(line);
    if (keys.length > MAX_KEYS) throw new ParseError(`${name}: has more than ${MAX_KEYS} keys`, { code });
  }
  if (keys.length === 0) throw new ParseError(`${name}: has no key in it`, { code });
  return keys;
}

/**
 * Encrypts to each of the recipients (age-encryption.org/v1), armored.
 * @throws ParseError (ERR_RECIPIENT) for one whose checksum is wrong
 */
export async function encryptTo(recipients: readonly string[], plaintext: string): Promise<string> {
  const { armor, Encrypter } = await import('age-encryption');
  const encrypter = new Encrypter();
  for (const recipient of recipients) {
    try {
      encrypter.addRecipient(recipient);
    } catch {
      throw new ParseError(`${recipient} is no recipient of age: it was copied wrongly`, {
        code: 'ERR_RECIPIENT',
      });
    }
  }
  const bytes = toUtf8(plaintext);
  try {
    return armor.encode(await encrypter.encrypt(bytes));
  } finally {
    bytes.fill(0);
  }
}

/**
 * Decrypts what {@link encryptTo}, or another program that writes the format, encrypted.
 * @param name of the file, for messages
 * @throws ParseError (ERR_ESCROW, ERR_IDENTITY), AsterismError (ERR_ESCROW) where no identity fits or it was changed
 */
export async function decryptWith(
  identities: readonly string[],
  armored: string,
  name: string,
): Promise<string> {
  const { armor, Decrypter } = await import('age-encryption');
  const decrypter = new Decrypter();
  for (const identity of identities) {
    try {
      decrypter.addIdentity(identity);
    } catch {
      // Without the library's error, which may quote it.
      throw new ParseError('an identity is damaged: its checksum is wrong', { code: 'ERR_IDENTITY' });
    }
  }
  let file: Uint8Array;
  try {
    file = armor.decode(armored);
  } catch (cause) {
    throw new ParseError(
      `${name}: is no armored age file (-----BEGIN AGE ENCRYPTED FILE-----), or is damaged`,
      {
        code: 'ERR_ESCROW',
        cause,
      },
    );
  }
  let plaintext: Uint8Array;
  try {
    plaintext = await decrypter.decrypt(file);
  } catch (cause) {
    throw new AsterismError(
      'ERR_ESCROW',
      `${name}: cannot be decrypted: it is not for these identities, or it was changed`,
      { cause },
    );
  }
  try {
    return fromUtf8(plaintext);
  } finally {
    plaintext.fill(0);
  }
}
