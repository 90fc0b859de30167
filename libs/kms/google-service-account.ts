import { parseJson } from '@asterism/bytes/json';
import { ParseError } from '@asterism/errors/errors';
import { isLoopback } from './endpoint.ts';

const MAX_LENGTH = 16_384;
const PRIVATE_KEY =
  /^-----BEGIN (RSA )?PRIVATE KEY-----[A-Za-z0-9+/=\s]{1,8192}-----END (RSA )?PRIVATE KEY-----\s*$/;

/** What a service account key as Google Cloud makes it says. The private key is not looked at yet. */
export interface ServiceAccountKey {
  readonly email: string;
  readonly privateKeyId: string | undefined;
  /** PEM. */
  readonly privateKey: string;
  /** Where it is exchanged for tokens: https, or http to this machine. */
  readonly tokenUri: string;
}

/** @throws ParseError it is no service account key, or its tokens would travel in the clear; never a part of it */
export function parseServiceAccountKey(text: string): ServiceAccountKey {
  if (text.length > MAX_LENGTH) throw new ParseError('more than a service account key has');
  const value = parseJson(text);
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw new ParseError('not the JSON of a service account key');
  const fields = value as Readonly<Record<string, unknown>>;
  const field = (name: string, pattern: RegExp): string => {
    const found = fields[name];
    if (typeof found !== 'string' || !pattern.test(found))
      throw new ParseError(`${name} is missing or is not what it should be`);
    return found;
  };
  if (fields.type !== 'service_account') throw new ParseError('its type is not service_account');
  const tokenUri = field('token_uri', /^https?:\/\/[\x21-\x7e]{1,256}$/);
  const url = URL.canParse(tokenUri) ? new URL(tokenUri) : undefined;
  if (url === undefined || url.username !== '' || url.password !== '' || url.hash !== '')
    throw new ParseError('token_uri is no plain URL');
  if (url.protocol !== 'https:' && !isLoopback(url))
    throw new ParseError('token_uri must be https: tokens would travel in the clear');
  return {
    email: field('client_email', /^[\x21-\x7e]{3,320}$/),
    privateKeyId:
      fields.private_key_id === undefined ? undefined : field('private_key_id', /^[\x21-\x7e]{1,128}$/),
    privateKey: field('private_key', PRIVATE_KEY),
    tokenUri,
  };
}
