/** The part of PKCS#11 v2.40 that is used here: names and numbers of its header files. */

export const CKO_SECRET_KEY = 4n;
export const CKK_GENERIC_SECRET = 0x10n;
export const CKK_AES = 0x1fn;
export const CKU_USER = 1n;
/** RFC 3394: no parameter, and 8 bytes more than the key that is wrapped. */
export const CKM_AES_KEY_WRAP = 0x2109;
export const CKF_SERIAL_SESSION = 4n;

/** Flags of a token. */
export const CKF = {
  LOGIN_REQUIRED: 0x4n,
  USER_PIN_FINAL_TRY: 0x20000n,
  USER_PIN_LOCKED: 0x40000n,
} as const;

/** Attributes with the form that p11-kit gives their values. */
export const ATTRIBUTES = {
  CKA_CLASS: { type: 0x0, form: 'ulong' },
  CKA_TOKEN: { type: 0x1, form: 'bool' },
  CKA_PRIVATE: { type: 0x2, form: 'bool' },
  CKA_LABEL: { type: 0x3, form: 'bytes' },
  CKA_VALUE: { type: 0x11, form: 'bytes' },
  CKA_KEY_TYPE: { type: 0x100, form: 'ulong' },
  CKA_ID: { type: 0x102, form: 'bytes' },
  CKA_SENSITIVE: { type: 0x103, form: 'bool' },
  CKA_WRAP: { type: 0x106, form: 'bool' },
  CKA_UNWRAP: { type: 0x107, form: 'bool' },
  CKA_VALUE_LEN: { type: 0x161, form: 'ulong' },
  CKA_EXTRACTABLE: { type: 0x162, form: 'bool' },
} as const;

export type AttributeName = keyof typeof ATTRIBUTES;

type ValueOf<Name extends AttributeName> = {
  readonly ulong: bigint;
  readonly bool: boolean;
  readonly bytes: Uint8Array;
}[(typeof ATTRIBUTES)[Name]['form']];

/** Values by name. In answers those that the object does not have, or does not tell, are not there. */
export type Attributes = { readonly [Name in AttributeName]?: ValueOf<Name> };

/** Return values that mean something here. */
export const CKR = {
  HOST_MEMORY: 0x2,
  SLOT_ID_INVALID: 0x3,
  GENERAL_ERROR: 0x5,
  FUNCTION_FAILED: 0x6,
  ATTRIBUTE_SENSITIVE: 0x11,
  ATTRIBUTE_TYPE_INVALID: 0x12,
  ATTRIBUTE_VALUE_INVALID: 0x13,
  ACTION_PROHIBITED: 0x1b,
  DATA_INVALID: 0x20,
  DATA_LEN_RANGE: 0x21,
  DEVICE_ERROR: 0x30,
  DEVICE_MEMORY: 0x31,
  DEVICE_REMOVED: 0x32,
  ENCRYPTED_DATA_INVALID: 0x40,
  ENCRYPTED_DATA_LEN_RANGE: 0x41,
  FUNCTION_NOT_SUPPORTED: 0x54,
  KEY_HANDLE_INVALID: 0x60,
  KEY_FUNCTION_NOT_PERMITTED: 0x68,
  KEY_NOT_WRAPPABLE: 0x69,
  KEY_UNEXTRACTABLE: 0x6a,
  MECHANISM_INVALID: 0x70,
  MECHANISM_PARAM_INVALID: 0x71,
  OBJECT_HANDLE_INVALID: 0x82,
  OPERATION_ACTIVE: 0x90,
  PIN_INCORRECT: 0xa0,
  PIN_INVALID: 0xa1,
  PIN_LEN_RANGE: 0xa2,
  PIN_EXPIRED: 0xa3,
  PIN_LOCKED: 0xa4,
  SESSION_CLOSED: 0xb0,
  SESSION_COUNT: 0xb1,
  SESSION_HANDLE_INVALID: 0xb3,
  TEMPLATE_INCONSISTENT: 0xd1,
  TOKEN_NOT_PRESENT: 0xe0,
  TOKEN_NOT_RECOGNIZED: 0xe1,
  UNWRAPPING_KEY_HANDLE_INVALID: 0xf0,
  UNWRAPPING_KEY_TYPE_INCONSISTENT: 0xf2,
  USER_ALREADY_LOGGED_IN: 0x100,
  USER_NOT_LOGGED_IN: 0x101,
  USER_PIN_NOT_INITIALIZED: 0x102,
  WRAPPED_KEY_INVALID: 0x110,
  WRAPPED_KEY_LEN_RANGE: 0x112,
  WRAPPING_KEY_HANDLE_INVALID: 0x113,
  WRAPPING_KEY_TYPE_INCONSISTENT: 0x115,
  CRYPTOKI_NOT_INITIALIZED: 0x190,
} as const;

/** `CKR_PIN_INCORRECT`, or the number where it is none of ours. */
export function nameOfReturn(value: number): string {
  const [name] = Object.entries(CKR).find(([, number]) => number === value) ?? [];
  return name === undefined ? `0x${value.toString(16)}` : `CKR_${name}`;
}
