const CERTIFICATE_ERROR =
  /^(CERT_|ERR_TLS_CERT_|UNABLE_TO_(GET|VERIFY|DECRYPT|DECODE)_|(DEPTH_ZERO_)?SELF_SIGNED_|ERROR_IN_CERT_|INVALID_(CA|PURPOSE)|PATH_LENGTH_EXCEEDED|HOSTNAME_MISMATCH)/;

/** Whether a TLS connection failed because the peer's certificate does not prove who it is: waiting does not help. */
export function isCertificateError(error: unknown): boolean {
  const { code } = (error ?? {}) as { code?: unknown };
  return typeof code === 'string' && CERTIFICATE_ERROR.test(code);
}
