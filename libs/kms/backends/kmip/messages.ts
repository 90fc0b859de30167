import { ParseError } from '@asterism/errors/errors';
import {
  bytes,
  enumeration,
  integer,
  optional,
  required,
  structure,
  structureOf,
  structuresOf,
  text,
} from './items.ts';
import { CREDENTIAL_USERNAME_AND_PASSWORD, OPERATION, type OperationName, STATUS, TAG } from './tags.ts';
import { decodeTtlv, encodeTtlv, type Item, MAX_MESSAGE_BYTES, type Structure } from './ttlv.ts';

/** Versions of the protocol that are spoken. They differ in how attributes are written. */
export type KmipVersion = '1.4' | '2.0';

export interface Request {
  readonly version: KmipVersion;
  readonly operation: OperationName;
  /** Unique Batch Item ID: 1 to 16 bytes that the answer repeats. */
  readonly id: Uint8Array;
  readonly payload: readonly (Item | undefined)[];
  /** Where the server asks for more than a client certificate. */
  readonly login?: { readonly username: string; readonly password: string | undefined };
}

/** What the server says of an operation. */
export type Answer =
  | { readonly succeeded: true; readonly payload: Structure }
  | {
      readonly succeeded: false;
      /** Result Reason; 0 where it names none. */
      readonly reason: number;
      /** Result Message: foreign text, empty where there is none. */
      readonly message: string;
    };

/** A request message of one batch item (KMIP 1.4 sections 6 and 7.1). */
export function encodeRequest({ version, operation, id, payload, login }: Request): Uint8Array {
  const [major, minor] = version.split('.').map(Number);
  return encodeTtlv(
    structure(
      TAG.requestMessage,
      structure(
        TAG.requestHeader,
        structure(
          TAG.protocolVersion,
          integer(TAG.protocolVersionMajor, major!),
          integer(TAG.protocolVersionMinor, minor!),
        ),
        integer(TAG.maximumResponseSize, MAX_MESSAGE_BYTES),
        login && authentication(login),
        integer(TAG.batchCount, 1),
      ),
      structure(
        TAG.batchItem,
        enumeration(TAG.operation, OPERATION[operation]),
        bytes(TAG.uniqueBatchItemId, id),
        structure(TAG.requestPayload, ...payload),
      ),
    ),
  );
}

/** Authentication and Credential (KMIP 1.4 sections 6.6 and 2.1.2). */
function authentication({ username, password }: NonNullable<Request['login']>): Item {
  return structure(
    TAG.authentication,
    structure(
      TAG.credential,
      enumeration(TAG.credentialType, CREDENTIAL_USERNAME_AND_PASSWORD),
      structure(
        TAG.credentialValue,
        text(TAG.username, username),
        password === undefined ? undefined : text(TAG.password, password),
      ),
    ),
  );
}

/**
 * Reads the answer to a request. Its byte strings are views of the input.
 *
 * @throws ParseError it is no response message, or not one to this request
 */
export function decodeAnswer(input: Uint8Array, { version, operation, id }: Request): Answer {
  const message = decodeTtlv(input);
  if (message.tag !== TAG.responseMessage || message.type !== 'structure')
    throw new ParseError('no response message', { offset: 0 });
  const header = structureOf(message, TAG.responseHeader);
  const [item, ...others] = structuresOf(message, TAG.batchItem);
  if (item === undefined || others.length > 0 || required(header, TAG.batchCount, 'integer') !== 1)
    throw new ParseError('an answer with another number of batch items than one');

  const status = required(item, TAG.resultStatus, 'enumeration');
  const itsOperation = optional(item, TAG.operation, 'enumeration');
  const itsId = optional(item, TAG.uniqueBatchItemId, 'byteString');
  // A server that could not read the request names neither (KMIP 1.4 section 7.2), and may answer in another version.
  const failed = status === STATUS.operationFailed;
  if (itsOperation !== OPERATION[operation] && !(failed && itsOperation === undefined))
    throw new ParseError('an answer to another operation');
  if (itsId === undefined ? !failed : Buffer.compare(itsId, id) !== 0)
    throw new ParseError('an answer to another request');
  if (failed) {
    return {
      succeeded: false,
      reason: optional(item, TAG.resultReason, 'enumeration') ?? 0,
      message: optional(item, TAG.resultMessage, 'textString') ?? '',
    };
  }
  if (status !== STATUS.success)
    throw new ParseError('the operation is pending or undone: asynchronous answers were not asked for');
  if (versionOf(header) !== version) throw new ParseError('an answer in another version of KMIP');
  return { succeeded: true, payload: structureOf(item, TAG.responsePayload) };
}

function versionOf(header: Structure): string {
  const version = structureOf(header, TAG.protocolVersion);
  const part = (tag: number) => required(version, tag, 'integer');
  return `${part(TAG.protocolVersionMajor)}.${part(TAG.protocolVersionMinor)}`;
}
