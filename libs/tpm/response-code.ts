import { AsterismError } from '@asterism/errors/errors';

const FORMAT_0 = new Map<number, string>([
  [0x100, 'TPM_RC_INITIALIZE'],
  [0x101, 'TPM_RC_FAILURE'],
  [0x103, 'TPM_RC_SEQUENCE'],
  [0x120, 'TPM_RC_DISABLED'],
  [0x121, 'TPM_RC_EXCLUSIVE'],
  [0x124, 'TPM_RC_AUTH_TYPE'],
  [0x125, 'TPM_RC_AUTH_MISSING'],
  [0x126, 'TPM_RC_POLICY'],
  [0x127, 'TPM_RC_PCR'],
  [0x128, 'TPM_RC_PCR_CHANGED'],
  [0x12f, 'TPM_RC_AUTH_UNAVAILABLE'],
  [0x130, 'TPM_RC_REBOOT'],
  [0x131, 'TPM_RC_UNBALANCED'],
  [0x142, 'TPM_RC_COMMAND_SIZE'],
  [0x143, 'TPM_RC_COMMAND_CODE'],
  [0x144, 'TPM_RC_AUTHSIZE'],
  [0x145, 'TPM_RC_AUTH_CONTEXT'],
  [0x146, 'TPM_RC_NV_RANGE'],
  [0x148, 'TPM_RC_NV_LOCKED'],
  [0x149, 'TPM_RC_NV_AUTHORIZATION'],
  [0x14a, 'TPM_RC_NV_UNINITIALIZED'],
  [0x14b, 'TPM_RC_NV_SPACE'],
  [0x14c, 'TPM_RC_NV_DEFINED'],
  [0x901, 'TPM_RC_CONTEXT_GAP'],
  [0x902, 'TPM_RC_OBJECT_MEMORY'],
  [0x903, 'TPM_RC_SESSION_MEMORY'],
  [0x904, 'TPM_RC_MEMORY'],
  [0x905, 'TPM_RC_SESSION_HANDLES'],
  [0x906, 'TPM_RC_OBJECT_HANDLES'],
  [0x907, 'TPM_RC_LOCALITY'],
  [0x908, 'TPM_RC_YIELDED'],
  [0x909, 'TPM_RC_CANCELED'],
  [0x90a, 'TPM_RC_TESTING'],
  [0x920, 'TPM_RC_NV_RATE'],
  [0x921, 'TPM_RC_LOCKOUT'],
  [0x922, 'TPM_RC_RETRY'],
  [0x923, 'TPM_RC_NV_UNAVAILABLE'],
]);

const FORMAT_1 = new Map<number, string>([
  [0x01, 'TPM_RC_ASYMMETRIC'],
  [0x02, 'TPM_RC_ATTRIBUTES'],
  [0x03, 'TPM_RC_HASH'],
  [0x04, 'TPM_RC_VALUE'],
  [0x05, 'TPM_RC_HIERARCHY'],
  [0x07, 'TPM_RC_KEY_SIZE'],
  [0x08, 'TPM_RC_MGF'],
  [0x09, 'TPM_RC_MODE'],
  [0x0a, 'TPM_RC_TYPE'],
  [0x0b, 'TPM_RC_HANDLE'],
  [0x0c, 'TPM_RC_KDF'],
  [0x0d, 'TPM_RC_RANGE'],
  [0x0e, 'TPM_RC_AUTH_FAIL'],
  [0x0f, 'TPM_RC_NONCE'],
  [0x10, 'TPM_RC_PP'],
  [0x12, 'TPM_RC_SCHEME'],
  [0x15, 'TPM_RC_SIZE'],
  [0x16, 'TPM_RC_SYMMETRIC'],
  [0x17, 'TPM_RC_TAG'],
  [0x18, 'TPM_RC_SELECTOR'],
  [0x1a, 'TPM_RC_INSUFFICIENT'],
  [0x1b, 'TPM_RC_SIGNATURE'],
  [0x1c, 'TPM_RC_KEY'],
  [0x1d, 'TPM_RC_POLICY_FAIL'],
  [0x1f, 'TPM_RC_INTEGRITY'],
  [0x20, 'TPM_RC_TICKET'],
  [0x21, 'TPM_RC_RESERVED_BITS'],
  [0x22, 'TPM_RC_BAD_AUTH'],
  [0x23, 'TPM_RC_EXPIRED'],
  [0x24, 'TPM_RC_POLICY_CC'],
  [0x25, 'TPM_RC_BINDING'],
  [0x26, 'TPM_RC_CURVE'],
  [0x27, 'TPM_RC_ECC_POINT'],
]);

/**
 * Name of a response code, Part 2 section 6.6: format 1 codes carry the number of the part that is wrong. Bits 16 and
 * up say which layer answered, where it was not the TPM (11: the kernel's resource manager).
 */
export function responseCodeName(responseCode: number): string {
  const layer = responseCode >>> 16;
  const code = responseCode & 0xffff;
  if (layer !== 0) return `${responseCodeName(code)} from layer ${layer}`;
  if ((code & 0x80) === 0) return FORMAT_0.get(code) ?? 'TPM_RC_UNKNOWN';
  const name = FORMAT_1.get(code & 0x3f) ?? 'TPM_RC_UNKNOWN';
  const number = (code >> 8) & 0xf;
  const part =
    (code & 0x40) !== 0 ? `parameter ${number}` : number >= 8 ? `session ${number - 8}` : `handle ${number}`;
  return `${name} (${part})`;
}

/** The TPM answered a command with an error. */
export class TpmError extends AsterismError {
  readonly responseCode: number;

  constructor(command: string, responseCode: number) {
    super(
      'ERR_TPM',
      `the TPM refused ${command}: ${responseCodeName(responseCode)}, 0x${responseCode.toString(16)}`,
    );
    this.responseCode = responseCode;
  }

  /** Whether the TPM says there is nothing behind a handle. */
  get isNoSuchHandle(): boolean {
    return (this.responseCode & 0xbf) === 0x8b;
  }
}

/** The TPM asks for the same command again (it was busy, or is saving its dictionary-attack state). */
export const RETRY_CODES: ReadonlySet<number> = new Set([0x922, 0x908, 0x90a, 0x920]);
