import { ParseError } from '@asterism/errors/errors';
import { encodeBody, FRAME_HEADER_BYTES, parseBody, parseFrameHeader, parseResponse } from './rpc-message.ts';
import { type ValueReader, ValueWriter } from './rpc-values.ts';

export const name = 'kms/pkcs11-rpc';

const values = (write: (out: ValueWriter) => ValueWriter, signature: string) =>
  write(new ValueWriter()).finish(signature);

export const seeds = [
  encodeBody(
    4,
    'au',
    values((out) => out.ulongs([1n, 0x5c2bc8den]), 'au'),
  ),
  encodeBody(
    10,
    'u',
    values((out) => out.ulong(7n), 'u'),
  ),
  encodeBody(
    0,
    'u',
    values((out) => out.ulong(0xa0n), 'u'),
  ),
  encodeBody(
    60,
    'ay',
    values((out) => out.bytes(new Uint8Array(72)), 'ay'),
  ),
  encodeBody(
    24,
    'aAu',
    values(
      (out) =>
        out
          .attributes({
            CKA_KEY_TYPE: 0x1fn,
            CKA_SENSITIVE: true,
            CKA_ID: Uint8Array.of(1),
            CKA_VALUE_LEN: 32n,
          })
          .ulong(0n),
      'aAu',
    ),
  ),
];

/** What a hostile server sends is refused by ParseError, or read within bounds. */
export function run(input: Uint8Array): void {
  if (input.length >= FRAME_HEADER_BYTES)
    tried(() => parseFrameHeader(input.subarray(0, FRAME_HEADER_BYTES)));
  const { id, signature, values } = parseBody(input);
  for (const call of ['C_GetSlotList', 'C_OpenSession', 'C_GetAttributeValue', 'C_WrapKey'] as const)
    tried(() => parseResponse(call, input));
  readAs(signature, values);
  if (id > 0xffffffff) throw new Error('a call id out of bounds');
}

function readAs(signature: string, values: ValueReader): void {
  let left = signature;
  const take = (letters: string) => {
    if (!left.startsWith(letters)) return false;
    left = left.slice(letters.length);
    return true;
  };
  while (left !== '') {
    if (take('ay')) values.bytes();
    else if (take('au')) values.ulongs();
    else if (take('aA')) values.attributes();
    else if (take('u')) values.ulong();
    else if (take('y')) values.byte();
    else if (take('s')) values.spaceString(16);
    else if (take('v')) values.version();
    else throw new ParseError('a letter that no answer has');
  }
  values.end();
}

function tried(parse: () => unknown): void {
  try {
    parse();
  } catch (error) {
    if (!(error instanceof ParseError)) throw error;
  }
}
