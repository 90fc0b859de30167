import { ParseError } from '@asterism/errors/errors';
import {
  bytes,
  enumeration,
  every,
  integer,
  optional,
  required,
  structure,
  structureOf,
  structuresOf,
  text,
} from './items.ts';
import type { KmipVersion } from './messages.ts';
import { ALGORITHM_AES, MODE, NAME_TYPE_TEXT, OBJECT_TYPE_SYMMETRIC_KEY, TAG } from './tags.ts';
import type { Item, Structure } from './ttlv.ts';

/** A request payload, and how the response payload to it is read. What is read holds no views of it. */
export interface Operation<T> {
  readonly name: 'discoverVersions' | 'locate' | 'getAttributes' | 'encrypt' | 'decrypt';
  readonly payload: readonly (Item | undefined)[];
  /** @throws ParseError */
  read(payload: Structure): T;
}

/** Attributes of a key. */
export interface KeyAttributes {
  /** State Enumeration. */
  readonly state: number;
  /** Cryptographic Algorithm Enumeration. */
  readonly algorithm: number;
  /** Bits. */
  readonly length: number;
  /** Cryptographic Usage Mask. */
  readonly usage: number;
  /** Block Cipher Mode of its first Cryptographic Parameters, where it has any. */
  readonly mode: number | undefined;
}

/** A bound on identifiers of servers: what comes back is stored with every wrapped key. */
const MAX_IDENTIFIER = 256;
const GCM_TAG_BYTES = 16;

const NAMES = {
  [TAG.name]: 'Name',
  [TAG.objectType]: 'Object Type',
  [TAG.state]: 'State',
  [TAG.cryptographicAlgorithm]: 'Cryptographic Algorithm',
  [TAG.cryptographicLength]: 'Cryptographic Length',
  [TAG.cryptographicUsageMask]: 'Cryptographic Usage Mask',
  [TAG.cryptographicParameters]: 'Cryptographic Parameters',
} as const;
type AttributeTag = keyof typeof NAMES;

/** Which versions, of one, the server speaks (KMIP 1.4 section 4.26). @returns whether it is among them */
export function discoverVersions(version: KmipVersion): Operation<boolean> {
  const [major, minor] = version.split('.').map(Number);
  const wanted = structure(
    TAG.protocolVersion,
    integer(TAG.protocolVersionMajor, major!),
    integer(TAG.protocolVersionMinor, minor!),
  );
  return {
    name: 'discoverVersions',
    payload: [wanted],
    read: (payload) =>
      structuresOf(payload, TAG.protocolVersion).some(
        (found) =>
          required(found, TAG.protocolVersionMajor, 'integer') === major &&
          required(found, TAG.protocolVersionMinor, 'integer') === minor,
      ),
  };
}

/**
 * Symmetric keys of a name: two at most, to see that there is more than one (KMIP 1.4 section 4.9).
 * @returns unique identifiers
 */
export function locate(version: KmipVersion, name: string): Operation<string[]> {
  const value = [text(TAG.nameValue, name), enumeration(TAG.nameType, NAME_TYPE_TEXT)];
  const wanted = [
    enumeration(TAG.objectType, OBJECT_TYPE_SYMMETRIC_KEY),
    structure(TAG.name, ...value),
  ] as const;
  return {
    name: 'locate',
    payload: [integer(TAG.maximumItems, 2), ...attributes(version, wanted)],
    read: (payload) => every(payload, TAG.uniqueIdentifier, 'textString').map(checkIdentifier),
  };
}

/** Attributes as a request holds them: each with its name; from KMIP 2.0 on, as items of one structure. */
function attributes(version: KmipVersion, items: readonly Item[]): Item[] {
  if (version === '2.0') return [structure(TAG.attributes, ...items)];
  return items.map((item) =>
    structure(TAG.attribute, text(TAG.attributeName, NAMES[item.tag as AttributeTag]), {
      ...item,
      tag: TAG.attributeValue,
    }),
  );
}

/** What a key is and whether it may be used (KMIP 1.4 section 4.12). */
export function getAttributes(version: KmipVersion, uniqueIdentifier: string): Operation<KeyAttributes> {
  const wanted = [
    TAG.state,
    TAG.cryptographicAlgorithm,
    TAG.cryptographicLength,
    TAG.cryptographicUsageMask,
    TAG.cryptographicParameters,
  ] as const;
  return {
    name: 'getAttributes',
    payload: [
      text(TAG.uniqueIdentifier, uniqueIdentifier),
      // KMIP 2.0: an Attribute Reference, as an enumeration whose values are tags.
      ...wanted.map((tag) =>
        version === '2.0' ? enumeration(TAG.attributeReference, tag) : text(TAG.attributeName, NAMES[tag]),
      ),
    ],
    read(payload) {
      sameIdentifier(payload, uniqueIdentifier);
      const found = version === '2.0' ? structureOf(payload, TAG.attributes) : attributesOf14(payload);
      const [parameters] = structuresOf(found, TAG.cryptographicParameters);
      return {
        state: required(found, TAG.state, 'enumeration'),
        algorithm: required(found, TAG.cryptographicAlgorithm, 'enumeration'),
        length: required(found, TAG.cryptographicLength, 'integer'),
        usage: required(found, TAG.cryptographicUsageMask, 'integer'),
        mode: parameters && optional(parameters, TAG.blockCipherMode, 'enumeration'),
      };
    },
  };
}

/** Attributes of KMIP 1.4, with the tags that they have in KMIP 2.0. Those that we did not ask for are left out. */
function attributesOf14(payload: Structure): Structure {
  const tags = new Map(Object.entries(NAMES).map(([tag, name]) => [name as string, Number(tag)]));
  const items = structuresOf(payload, TAG.attribute).map((attribute): Item | undefined => {
    const tag = tags.get(required(attribute, TAG.attributeName, 'textString'));
    const content = attribute.value.find((item) => item.tag === TAG.attributeValue);
    return tag === undefined || content === undefined ? undefined : { ...content, tag };
  });
  return structure(TAG.attributes, ...items);
}

/** What AES-GCM encrypts to. */
export interface GcmBox {
  /** As long as the plaintext. */
  readonly ciphertext: Uint8Array;
  /** {@link GCM_TAG_BYTES} bytes. */
  readonly tag: Uint8Array;
}

const gcmParameters = structure(
  TAG.cryptographicParameters,
  enumeration(TAG.blockCipherMode, MODE.gcm),
  enumeration(TAG.cryptographicAlgorithm, ALGORITHM_AES),
  integer(TAG.tagLength, GCM_TAG_BYTES),
);

/** AES-GCM with an IV of ours (KMIP 1.4 section 4.29). @param context authenticated, not encrypted */
export function encryptGcm(
  uniqueIdentifier: string,
  data: Uint8Array,
  iv: Uint8Array,
  context: Uint8Array | undefined,
): Operation<GcmBox> {
  return {
    name: 'encrypt',
    payload: [
      text(TAG.uniqueIdentifier, uniqueIdentifier),
      gcmParameters,
      bytes(TAG.data, data),
      bytes(TAG.ivCounterNonce, iv),
      context && bytes(TAG.authenticatedEncryptionAdditionalData, context),
    ],
    read(payload) {
      sameIdentifier(payload, uniqueIdentifier);
      const used = optional(payload, TAG.ivCounterNonce, 'byteString');
      if (used !== undefined && Buffer.compare(used, iv) !== 0)
        throw new ParseError('the server used another IV than it was given');
      const ciphertext = required(payload, TAG.data, 'byteString');
      const tag = required(payload, TAG.authenticatedEncryptionTag, 'byteString');
      if (ciphertext.length !== data.length || tag.length !== GCM_TAG_BYTES)
        throw new ParseError(`AES-GCM with ${ciphertext.length} bytes and a tag of ${tag.length}`);
      return { ciphertext: ciphertext.slice(), tag: tag.slice() };
    },
  };
}

/** KMIP 1.4 section 4.30. */
export function decryptGcm(
  uniqueIdentifier: string,
  { ciphertext, tag }: GcmBox,
  iv: Uint8Array,
  context: Uint8Array | undefined,
): Operation<Uint8Array> {
  return {
    name: 'decrypt',
    payload: [
      text(TAG.uniqueIdentifier, uniqueIdentifier),
      gcmParameters,
      bytes(TAG.data, ciphertext),
      bytes(TAG.ivCounterNonce, iv),
      context && bytes(TAG.authenticatedEncryptionAdditionalData, context),
      bytes(TAG.authenticatedEncryptionTag, tag),
    ],
    read: (payload) => dataOf(payload, uniqueIdentifier),
  };
}

const keyWrapParameters = structure(
  TAG.cryptographicParameters,
  enumeration(TAG.blockCipherMode, MODE.nistKeyWrap),
  enumeration(TAG.cryptographicAlgorithm, ALGORITHM_AES),
);

/** AES Key Wrap (RFC 3394), which authenticates but takes no context, as a block cipher mode of Encrypt and Decrypt. */
export function keyWrap(
  name: 'encrypt' | 'decrypt',
  uniqueIdentifier: string,
  data: Uint8Array,
): Operation<Uint8Array> {
  return {
    name,
    payload: [text(TAG.uniqueIdentifier, uniqueIdentifier), keyWrapParameters, bytes(TAG.data, data)],
    read: (payload) => dataOf(payload, uniqueIdentifier),
  };
}

function dataOf(payload: Structure, uniqueIdentifier: string): Uint8Array {
  sameIdentifier(payload, uniqueIdentifier);
  return required(payload, TAG.data, 'byteString').slice();
}

function sameIdentifier(payload: Structure, uniqueIdentifier: string): void {
  if (required(payload, TAG.uniqueIdentifier, 'textString') !== uniqueIdentifier)
    throw new ParseError('an answer about another key');
}

function checkIdentifier(value: string): string {
  if (value.length === 0 || value.length > MAX_IDENTIFIER || !/^[\x20-\x7e]+$/.test(value))
    throw new ParseError('a unique identifier that is none');
  return value;
}
