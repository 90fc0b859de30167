/** Length of a handshake nonce in bytes; both directions. */
export const NONCE_LENGTH = 32;

/**
 * Largest attestation document in bytes. Go's TLS refuses handshake messages above 64 KiB and OpenSSL's above
 * 100 KiB; the certificate around the document takes less than 400 bytes.
 */
export const MAX_DOCUMENT_LENGTH = 60_000;

/** Largest certificate in bytes that is looked at. */
export const MAX_CERTIFICATE_LENGTH = MAX_DOCUMENT_LENGTH + 2048;

/** Certificates are valid this long before and after the moment they are made, in milliseconds. */
export const VALIDITY_MS = 2 * 60 * 60 * 1000;
