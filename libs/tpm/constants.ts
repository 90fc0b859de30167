/** Numbers of the TPM 2.0 Library Specification, Part 2: Structures. Only what is used here. */

export const Alg = {
  RSA: 0x0001,
  SHA1: 0x0004,
  SHA256: 0x000b,
  SHA384: 0x000c,
  SHA512: 0x000d,
  NULL: 0x0010,
  RSASSA: 0x0014,
  ECDSA: 0x0018,
  ECC: 0x0023,
} as const;

/** Digest sizes in bytes by algorithm. */
export const DIGEST_SIZE: ReadonlyMap<number, number> = new Map([
  [Alg.SHA1, 20],
  [Alg.SHA256, 32],
  [Alg.SHA384, 48],
  [Alg.SHA512, 64],
]);

export const Curve = { NIST_P256: 0x0003 } as const;

export const Tag = { NO_SESSIONS: 0x8001, SESSIONS: 0x8002, ATTEST_QUOTE: 0x8018 } as const;

export const Command = {
  EVICT_CONTROL: 0x120,
  CREATE_PRIMARY: 0x131,
  PCR_EVENT: 0x13c,
  STARTUP: 0x144,
  SHUTDOWN: 0x145,
  NV_READ: 0x14e,
  QUOTE: 0x158,
  FLUSH_CONTEXT: 0x165,
  NV_READ_PUBLIC: 0x169,
  READ_PUBLIC: 0x173,
  GET_CAPABILITY: 0x17a,
  GET_RANDOM: 0x17b,
  PCR_READ: 0x17e,
  PCR_EXTEND: 0x182,
} as const;

export const Handle = {
  OWNER: 0x40000001,
  NULL: 0x40000007,
  PASSWORD_SESSION: 0x40000009,
  ENDORSEMENT: 0x4000000b,
} as const;

/** Where the attestation key lives, as other tools of the field have it. */
export const AK_HANDLE = 0x81008f01;

/** TPMA_OBJECT, Part 2 section 8.3. */
export const ObjectAttribute = {
  FIXED_TPM: 1 << 1,
  FIXED_PARENT: 1 << 4,
  SENSITIVE_DATA_ORIGIN: 1 << 5,
  USER_WITH_AUTH: 1 << 6,
  NO_DA: 1 << 10,
  RESTRICTED: 1 << 16,
  DECRYPT: 1 << 17,
  SIGN: 1 << 18,
} as const;

/** TPM_GENERATED_VALUE: what a restricted key signs begins with it only when the TPM made it. */
export const TPM_GENERATED = 0xff544347;
