import { isCertificateError } from '../../certificate-errors.ts';
import { KmsError, type KmsErrorCode, KmsUnavailableError } from '../../errors.ts';
import { CKR, nameOfReturn } from './cryptoki.ts';
import type { CallName } from './rpc-message.ts';

/** A PKCS#11 function returned something else than CKR_OK. The connection is as good as before. */
export class CallRefused extends Error {
  readonly call: CallName;
  /** CKR_... */
  readonly value: number;

  constructor(call: CallName, value: number) {
    super(`${call} returned ${nameOfReturn(value)}`);
    this.name = 'CallRefused';
    this.call = call;
    this.value = value;
  }
}

type Meaning = readonly [code: KmsErrorCode, next: string];

const PIN: Meaning = [
  'ERR_KMS_CREDENTIALS',
  'the PIN is not tried again, so that it is not locked: check it, then start anew',
];
const POLICY: Meaning = [
  'ERR_KMS_DENIED',
  'the HSM must let this user make session objects, and wrap and unwrap them with the key',
];
const CANNOT: Meaning = ['ERR_KMS_SETTINGS', 'the HSM must know CKM_AES_KEY_WRAP for this key'];

const MEANINGS = new Map<number, Meaning>([
  [CKR.PIN_INCORRECT, PIN],
  [CKR.PIN_INVALID, PIN],
  [CKR.PIN_LEN_RANGE, PIN],
  [CKR.PIN_EXPIRED, PIN],
  [CKR.PIN_LOCKED, ['ERR_KMS_CREDENTIALS', 'the security officer of the token must set a new user PIN']],
  [CKR.USER_PIN_NOT_INITIALIZED, ['ERR_KMS_CREDENTIALS', 'the token has no user PIN yet: set one']],
  [CKR.ACTION_PROHIBITED, POLICY],
  [CKR.KEY_FUNCTION_NOT_PERMITTED, POLICY],
  [CKR.KEY_NOT_WRAPPABLE, POLICY],
  [CKR.KEY_UNEXTRACTABLE, POLICY],
  [CKR.TEMPLATE_INCONSISTENT, POLICY],
  [CKR.ATTRIBUTE_VALUE_INVALID, POLICY],
  [CKR.MECHANISM_INVALID, CANNOT],
  [CKR.MECHANISM_PARAM_INVALID, CANNOT],
  [CKR.FUNCTION_NOT_SUPPORTED, CANNOT],
  [CKR.WRAPPING_KEY_TYPE_INCONSISTENT, CANNOT],
  [CKR.UNWRAPPING_KEY_TYPE_INCONSISTENT, CANNOT],
]);

/** What HSMs return for bytes that AES key wrap does not open (SoftHSM: CKR_GENERAL_ERROR): a fault of any kind. */
const FAULTS = new Set<number>([
  CKR.GENERAL_ERROR,
  CKR.FUNCTION_FAILED,
  CKR.DATA_INVALID,
  CKR.DATA_LEN_RANGE,
  CKR.ENCRYPTED_DATA_INVALID,
  CKR.ENCRYPTED_DATA_LEN_RANGE,
  CKR.WRAPPED_KEY_INVALID,
  CKR.WRAPPED_KEY_LEN_RANGE,
]);

/** Over with another session: the token, the session or the key's handle is gone, or the HSM has no room now. */
const LATER = new Set<number>([
  CKR.HOST_MEMORY,
  CKR.DEVICE_MEMORY,
  CKR.DEVICE_ERROR,
  CKR.DEVICE_REMOVED,
  CKR.GENERAL_ERROR,
  CKR.FUNCTION_FAILED,
  CKR.KEY_HANDLE_INVALID,
  CKR.OBJECT_HANDLE_INVALID,
  CKR.WRAPPING_KEY_HANDLE_INVALID,
  CKR.UNWRAPPING_KEY_HANDLE_INVALID,
  CKR.OPERATION_ACTIVE,
  CKR.SESSION_CLOSED,
  CKR.SESSION_COUNT,
  CKR.SESSION_HANDLE_INVALID,
  CKR.SLOT_ID_INVALID,
  CKR.TOKEN_NOT_PRESENT,
  CKR.TOKEN_NOT_RECOGNIZED,
  CKR.USER_NOT_LOGGED_IN,
  CKR.CRYPTOKI_NOT_INITIALIZED,
]);

/** @param where the server, for a person */
export function meaningOf(refused: CallRefused, where: string): KmsError | KmsUnavailableError {
  const said = `the HSM at ${where}: ${refused.message}`;
  const options = { cause: refused };
  if (refused.call === 'C_UnwrapKey' && FAULTS.has(refused.value))
    return new KmsError(
      'ERR_KMS_UNWRAP',
      `${said}; the wrapped key is damaged, or was made with another key`,
      options,
    );
  // What may be a refusal of the PIN in the words of some HSM is not tried again.
  const perhapsPin = refused.call === 'C_Login' && FAULTS.has(refused.value);
  if (LATER.has(refused.value) && !perhapsPin) {
    const hint =
      refused.value === CKR.DEVICE_ERROR ? ' (p11-kit of another version than 0.24 answers so, too)' : '';
    return new KmsUnavailableError('ERR_KMS_UNAVAILABLE', `${said}${hint}; try again later`, options);
  }
  const [code, next] = MEANINGS.get(refused.value) ?? ['ERR_KMS_ANSWER', 'the log of the HSM may say why'];
  return new KmsError(code, `${said}; ${next}`, options);
}

/** Alerts by which a server refuses our certificate (RFC 8446 section 6.2), as OpenSSL names them. */
const CERTIFICATE_REFUSED =
  /ALERT_(BAD_CERTIFICATE|UNSUPPORTED_CERTIFICATE|CERTIFICATE_(REVOKED|EXPIRED|UNKNOWN|REQUIRED)|UNKNOWN_CA|ACCESS_DENIED|DECRYPT_ERROR|HANDSHAKE_FAILURE)$/;

/** What it means that a connection was not made, or ended. */
export function connectionFailure(
  cause: NodeJS.ErrnoException,
  where: string,
): KmsError | KmsUnavailableError {
  const { code = '', message } = cause;
  if (isCertificateError(cause))
    return new KmsError(
      'ERR_KMS_ANSWER',
      `the certificate of ${where} is not to be trusted (${message}); check caCertificate and serverName`,
      { cause },
    );
  if (CERTIFICATE_REFUSED.test(code))
    return new KmsError(
      'ERR_KMS_CREDENTIALS',
      `${where} refuses our certificate (${code}); check clientCertificate, and which authority the server trusts`,
      { cause },
    );
  if (code.startsWith('ERR_SSL_') || code === 'EPROTO')
    return new KmsError('ERR_KMS_ANSWER', `${where} does not speak TLS 1.2 or 1.3 (${code})`, { cause });
  return new KmsUnavailableError(
    'ERR_KMS_UNAVAILABLE',
    `${where} cannot be reached, or broke off (${code === '' ? message : code}); try again later`,
    { cause },
  );
}
