import { fromUtf8, toUtf8 } from '@asterism/bytes/encoding';
import { Reader } from '@asterism/bytes/reader';
import { Writer } from '@asterism/bytes/writer';
import { ParseError } from '@asterism/errors/errors';
import { ValueReader, ValueWriter } from './rpc-values.ts';

// The remoting protocol of p11-kit, version 0, as p11-kit 0.24 speaks it (rpc-message.h there lists calls and
// signatures). Client and server first send a byte each, their version; then frames go to and fro:
//   call code (4 bytes, chosen by the client), length of options (4), length of the body (4), options, body
// and a body is: call id (4), length of the signature (4), signature, values.

export const PROTOCOL_VERSION = 0;
/** What C_Initialize proves to speak. */
export const HANDSHAKE = toUtf8('PRIVATE-GNOME-KEYRING-PKCS11-PROTOCOL-V-1');
export const FRAME_HEADER_BYTES = 12;
/** Answers have a few hundred bytes. */
const MAX_FRAME_PART = 64 * 1024;
const MAX_SIGNATURE = 64;
const ERROR_CALL = 0;

/** Calls with the signatures of request and answer. */
export const CALLS = {
  C_Initialize: { id: 1, request: 'ayyay', response: '' },
  C_GetSlotList: { id: 4, request: 'yfu', response: 'au' },
  C_GetTokenInfo: { id: 6, request: 'u', response: 'ssssuuuuuuuuuuuvvs' },
  C_OpenSession: { id: 10, request: 'uu', response: 'u' },
  C_Login: { id: 18, request: 'uuay', response: '' },
  C_CreateObject: { id: 20, request: 'uaA', response: 'u' },
  C_DestroyObject: { id: 22, request: 'uu', response: '' },
  C_GetAttributeValue: { id: 24, request: 'uufA', response: 'aAu' },
  C_FindObjectsInit: { id: 26, request: 'uaA', response: '' },
  C_FindObjects: { id: 27, request: 'ufu', response: 'au' },
  C_FindObjectsFinal: { id: 28, request: 'u', response: '' },
  C_WrapKey: { id: 60, request: 'uMuufy', response: 'ay' },
  C_UnwrapKey: { id: 61, request: 'uMuayaA', response: 'u' },
} as const;

export type CallName = keyof typeof CALLS;

/** What came for a call: values, or the return value (CKR_...) of a function that failed. */
export type Response = { readonly values: ValueReader } | { readonly failed: number };

/** A frame that asks for a call. @param write writes the values of its signature */
export function encodeRequest(
  code: number,
  name: CallName,
  write: (values: ValueWriter) => void,
): Uint8Array {
  const { id, request } = CALLS[name];
  const values = new ValueWriter();
  write(values);
  return encodeFrame(code, encodeBody(id, request, values.finish(request)));
}

/** @param values as the signature says */
export function encodeBody(id: number, signature: string, values: Uint8Array): Uint8Array {
  return new Writer().u32be(id).u32be(signature.length).bytes(toUtf8(signature)).bytes(values).finish();
}

export function encodeFrame(code: number, body: Uint8Array): Uint8Array {
  return new Writer().u32be(code).u32be(0).u32be(body.length).bytes(body).finish();
}

/**
 * @param bytes {@link FRAME_HEADER_BYTES} of them
 * @throws ParseError a part is larger than 64 KiB
 */
export function parseFrameHeader(bytes: Uint8Array): {
  readonly code: number;
  readonly optionsBytes: number;
  readonly bodyBytes: number;
} {
  const reader = new Reader(bytes);
  const [code, optionsBytes, bodyBytes] = [reader.u32be(), reader.u32be(), reader.u32be()];
  reader.end('frame header');
  if (optionsBytes > MAX_FRAME_PART || bodyBytes > MAX_FRAME_PART)
    throw new ParseError(`a frame of ${optionsBytes} and ${bodyBytes} bytes`);
  return { code, optionsBytes, bodyBytes };
}

/** @returns call id, signature, and a reader of the values. @throws ParseError */
export function parseBody(body: Uint8Array): {
  readonly id: number;
  readonly signature: string;
  readonly values: ValueReader;
} {
  const reader = new Reader(body);
  const id = reader.u32be('call id');
  const length = reader.u32be('length of the signature');
  if (length > MAX_SIGNATURE) reader.fail(`a signature of ${length} bytes`);
  const signature = fromUtf8(reader.bytes(length, 'signature'));
  return { id, signature, values: new ValueReader(reader.rest()) };
}

/** @throws ParseError it answers something else than this call */
export function parseResponse(name: CallName, body: Uint8Array): Response {
  const { id, signature, values } = parseBody(body);
  if (id === ERROR_CALL && signature === 'u') {
    const failed = values.ulong();
    values.end();
    if (failed === 0n) throw new ParseError('an error that is none');
    return { failed: failed > 0xffffffffn ? 0xffffffff : Number(failed) };
  }
  if (id !== CALLS[name].id || signature !== CALLS[name].response)
    throw new ParseError(`${name} is answered by call ${id}`);
  return { values };
}
