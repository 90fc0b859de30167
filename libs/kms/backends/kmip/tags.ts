/** Tags that we send or read (KMIP 1.4 section 9.1.3.1; `attributes` and `attributeReference`: KMIP 2.0). */
export const TAG = {
  attribute: 0x420008,
  attributeName: 0x42000a,
  attributeValue: 0x42000b,
  authentication: 0x42000c,
  batchCount: 0x42000d,
  batchItem: 0x42000f,
  blockCipherMode: 0x420011,
  credential: 0x420023,
  credentialType: 0x420024,
  credentialValue: 0x420025,
  cryptographicAlgorithm: 0x420028,
  cryptographicLength: 0x42002a,
  cryptographicParameters: 0x42002b,
  cryptographicUsageMask: 0x42002c,
  ivCounterNonce: 0x42003d,
  maximumItems: 0x42004f,
  maximumResponseSize: 0x420050,
  name: 0x420053,
  nameType: 0x420054,
  nameValue: 0x420055,
  objectType: 0x420057,
  operation: 0x42005c,
  protocolVersion: 0x420069,
  protocolVersionMajor: 0x42006a,
  protocolVersionMinor: 0x42006b,
  requestHeader: 0x420077,
  requestMessage: 0x420078,
  requestPayload: 0x420079,
  responseHeader: 0x42007a,
  responseMessage: 0x42007b,
  responsePayload: 0x42007c,
  resultMessage: 0x42007d,
  resultReason: 0x42007e,
  resultStatus: 0x42007f,
  state: 0x42008d,
  uniqueBatchItemId: 0x420093,
  uniqueIdentifier: 0x420094,
  username: 0x420099,
  password: 0x4200a1,
  data: 0x4200c2,
  tagLength: 0x4200ce,
  authenticatedEncryptionAdditionalData: 0x4200fe,
  authenticatedEncryptionTag: 0x4200ff,
  attributes: 0x420125,
  attributeReference: 0x42013b,
} as const;

// Enumerations are those of KMIP 1.4 section 9.1.3.2, bit masks of 9.1.3.3; KMIP 2.0 kept all numbers and added some.

/** Operation Enumeration. */
export const OPERATION = {
  locate: 0x08,
  getAttributes: 0x0b,
  discoverVersions: 0x1e,
  encrypt: 0x1f,
  decrypt: 0x20,
} as const;

export type OperationName = keyof typeof OPERATION;

/** Result Status Enumeration. */
export const STATUS = { success: 0, operationFailed: 1, operationPending: 2, operationUndone: 3 } as const;

/** Result Reason Enumeration; 0x19 and more, but for the general failure, are of KMIP 2.0. */
export const REASON = {
  itemNotFound: 0x01,
  authenticationNotSuccessful: 0x03,
  invalidMessage: 0x04,
  operationNotSupported: 0x05,
  invalidField: 0x07,
  featureNotSupported: 0x08,
  cryptographicFailure: 0x0a,
  permissionDenied: 0x0c,
  objectArchived: 0x0d,
  usageLimitExceeded: 0x1a,
  badCryptographicParameters: 0x24,
  badPassword: 0x25,
  incompatibleCryptographicUsageMask: 0x29,
  internalServerError: 0x2a,
  objectDestroyed: 0x36,
  objectNotFound: 0x37,
  notAuthorised: 0x39,
  serverLimitExceeded: 0x3a,
  unsupportedCryptographicParameters: 0x3e,
  unsupportedProtocolVersion: 0x3f,
  wrongKeyLifecycleState: 0x43,
  protectionStorageUnavailable: 0x44,
  generalFailure: 0x100,
} as const;

/** State Enumeration, by number. */
export const STATES = [
  undefined,
  'Pre-Active',
  'Active',
  'Deactivated',
  'Compromised',
  'Destroyed',
  'Destroyed Compromised',
] as const;
export const STATE_ACTIVE = 2;

/** Cryptographic Algorithm Enumeration. */
export const ALGORITHM_AES = 0x03;
/** Block Cipher Mode Enumeration. */
export const MODE = { gcm: 0x09, nistKeyWrap: 0x0d } as const;
/** Cryptographic Usage Mask. */
export const USAGE = { encrypt: 0x04, decrypt: 0x08 } as const;
/** Object Type Enumeration. */
export const OBJECT_TYPE_SYMMETRIC_KEY = 0x02;
/** Name Type Enumeration. */
export const NAME_TYPE_TEXT = 0x01;
/** Credential Type Enumeration. */
export const CREDENTIAL_USERNAME_AND_PASSWORD = 0x01;
