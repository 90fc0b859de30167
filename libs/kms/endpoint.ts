import { KmsError } from './errors.ts';
import type { Settings } from './settings.ts';

const LOOPBACK = /^(127(\.\d{1,3}){3}|\[::1\]|localhost)$/;

/** Whether an address is this machine itself, where plain HTTP stays unseen. */
export function isLoopback(url: URL): boolean {
  return LOOPBACK.test(url.hostname);
}

/**
 * An endpoint that the user chose instead of the cloud's own. The machine's own credentials (a bearer token of its
 * instance, say) are never sent to it, whoever named it: it needs credentials made for it.
 *
 * @param service which error: of a KMS or of a store
 * @throws KmsError ERR_KMS_SETTINGS or ERR_STORE_SETTINGS
 */
export function chosenEndpoint(
  value: string | undefined,
  { credentials }: Settings,
  service: 'KMS' | 'STORE',
): URL | undefined {
  if (value === undefined) return undefined;
  const refuse = (why: string) => new KmsError(`ERR_${service}_SETTINGS`, why);
  if (!URL.canParse(value)) throw refuse('endpoint is no URL');
  const url = new URL(value);
  if (url.protocol !== 'https:' && !(url.protocol === 'http:' && isLoopback(url)))
    throw refuse(`the endpoint ${url.host} must be https: keys and credentials would travel in the clear`);
  const own = Object.entries(credentials).some(
    ([name, given]) => name !== 'caCertificate' && given !== undefined,
  );
  if (!own)
    throw refuse(`the endpoint ${url.host} needs credentials of its own: the machine's are not sent to it`);
  return url;
}
