import { printable } from '@asterism/bytes/printable';
import { KmsError, type KmsErrorCode, KmsUnavailableError } from '../../errors.ts';
import { type OperationName, REASON } from './tags.ts';

const MAX_MESSAGE = 200;

/** A server's refusal, before it is known what it means for the caller. */
export class KmipRefusal extends Error {
  readonly operation: OperationName;
  /** Result Reason. */
  readonly reason: number;

  constructor(operation: OperationName, reason: number, message: string) {
    const said = message === '' ? '' : ` (${printable(message, MAX_MESSAGE)})`;
    super(`${operation} was refused for ${nameOf(reason)}${said}`);
    this.name = 'KmipRefusal';
    this.operation = operation;
    this.reason = reason;
  }
}

/** `Item Not Found`, or the number where it is none of ours. */
function nameOf(reason: number): string {
  const [name] = Object.entries(REASON).find(([, number]) => number === reason) ?? [];
  // `itemNotFound` is the specification's Item Not Found.
  return (
    name?.replace(/^.|[A-Z]/g, (letter, at) => `${at === 0 ? '' : ' '}${letter.toUpperCase()}`) ??
    `reason 0x${reason.toString(16)}`
  );
}

type Meaning = readonly [code: KmsErrorCode, next: string];
const NO_KEY: Meaning = ['ERR_KMS_KEY_NOT_FOUND', 'the key is gone, or was never there: check keyName'];
const LOGIN: Meaning = ['ERR_KMS_CREDENTIALS', 'check the client certificate, and user name and password'];
const DENIED: Meaning = ['ERR_KMS_DENIED', 'allow this client to use the key, for encryption and decryption'];
const DISABLED: Meaning = ['ERR_KMS_KEY_DISABLED', 'the key must be active'];
const CANNOT: Meaning = [
  'ERR_KMS_SETTINGS',
  'the server does not encrypt with this key as it was asked to, by AES-GCM or as the key’s Cryptographic Parameters say',
];
const VERSION: Meaning = [
  'ERR_KMS_SETTINGS',
  'the server may speak another version of KMIP: try the other one',
];

const MEANINGS: ReadonlyMap<number, Meaning> = new Map([
  [REASON.itemNotFound, NO_KEY],
  [REASON.objectNotFound, NO_KEY],
  [REASON.objectDestroyed, NO_KEY],
  [REASON.authenticationNotSuccessful, LOGIN],
  [REASON.badPassword, LOGIN],
  [REASON.permissionDenied, DENIED],
  [REASON.notAuthorised, DENIED],
  [REASON.usageLimitExceeded, DENIED],
  [REASON.incompatibleCryptographicUsageMask, DENIED],
  [REASON.objectArchived, DISABLED],
  [REASON.wrongKeyLifecycleState, DISABLED],
  [REASON.operationNotSupported, CANNOT],
  [REASON.featureNotSupported, CANNOT],
  [REASON.invalidField, CANNOT],
  [REASON.badCryptographicParameters, CANNOT],
  [REASON.unsupportedCryptographicParameters, CANNOT],
  [REASON.invalidMessage, VERSION],
  [REASON.unsupportedProtocolVersion, VERSION],
]);

/** What a refusal means, by its reason alone. @param where the server, for a person */
export function meaningOf(refusal: KmipRefusal, where: string): KmsError | KmsUnavailableError {
  const said = `${where}: ${refusal.message}`;
  const { reason } = refusal;
  if (reason === REASON.serverLimitExceeded)
    return new KmsUnavailableError('ERR_KMS_THROTTLED', `${said}; try again later`, { cause: refusal });
  if (reason === REASON.internalServerError || reason === REASON.protectionStorageUnavailable)
    return new KmsUnavailableError('ERR_KMS_UNAVAILABLE', `${said}; try again later`, { cause: refusal });
  const [code, next] = MEANINGS.get(reason) ?? ['ERR_KMS_ANSWER', 'its log may say why'];
  return new KmsError(code, `${said}; ${next}`, { cause: refusal });
}

/** Alerts by which a server refuses our certificate (RFC 8446 section 6.2), as OpenSSL names them. */
const CERTIFICATE_REFUSED =
  /ALERT_(?:BAD_CERTIFICATE|UNSUPPORTED_CERTIFICATE|CERTIFICATE_(?:REVOKED|EXPIRED|UNKNOWN|REQUIRED)|UNKNOWN_CA|ACCESS_DENIED|DECRYPT_ERROR|HANDSHAKE_FAILURE|NO_CERTIFICATE)$/;

/**
 * What a failure of a TLS connection means.
 * @param identity why the certificate of the server was refused, where it was
 */
export function connectionFailure(
  error: NodeJS.ErrnoException,
  identity: string | undefined,
  where: string,
): KmsError | KmsUnavailableError {
  const { code = '' } = error;
  if (identity !== undefined) {
    const why = `is not who it should be (${printable(identity, MAX_MESSAGE)}): nothing was sent`;
    const next = 'check caCertificate and serverName, or the certificate of the server';
    return new KmsError('ERR_KMS_ANSWER', `${where} ${why}; ${next}`, { cause: error });
  }
  if (CERTIFICATE_REFUSED.test(code)) {
    const why = `refused the TLS connection (${code})`;
    return new KmsError(
      'ERR_KMS_CREDENTIALS',
      `${where} ${why}: it wants another client certificate, or TLS that we do not offer`,
      { cause: error },
    );
  }
  // Reasons of OpenSSL; those of the system and of the resolver have other names.
  if (code.startsWith('ERR_SSL_') || code === 'EPROTO')
    return new KmsError('ERR_KMS_ANSWER', `${where} does not speak TLS 1.2 or 1.3 (${code})`, {
      cause: error,
    });
  return new KmsUnavailableError(
    'ERR_KMS_UNAVAILABLE',
    `${where} cannot be reached (${code || error.message})`,
    {
      cause: error,
    },
  );
}

/** An answer that is none. */
export function answerFailure(error: unknown, where: string): KmsError {
  const why = error instanceof Error ? error.message : String(error);
  return new KmsError(
    'ERR_KMS_ANSWER',
    `${where} answered what makes no sense: ${why}; is it a KMIP server?`,
    {
      cause: error,
    },
  );
}
