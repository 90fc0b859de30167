import { KmsError } from '../../errors.ts';
import type { KmipClient } from './client.ts';
import { KmipRefusal } from './failures.ts';
import type { KmipVersion } from './messages.ts';
import { discoverVersions, getAttributes, type KeyAttributes, locate } from './operations.ts';
import { ALGORITHM_AES, REASON, USAGE } from './tags.ts';

/** A KEK wraps keys of 256 bits: it must be as strong. */
const KEY_BITS = 256;

export interface FoundKey extends KeyAttributes {
  /** Unique identifier. */
  readonly id: string;
}

/**
 * Finds the key that a user named, by its unique identifier or its Name, and judges whether it can be a KEK. Whether it
 * is active, the caller judges.
 *
 * @throws KmipRefusal the server refuses to tell
 * @throws KmsError ERR_KMS_KEY_NOT_FOUND | ERR_KMS_SETTINGS
 */
export async function findKey(
  client: KmipClient,
  version: KmipVersion,
  name: string,
  where: string,
  signal: AbortSignal | undefined,
): Promise<FoundKey> {
  const wrong = (why: string) => new KmsError('ERR_KMS_SETTINGS', `${where} ${why}`);
  if (!(await client.call(discoverVersions(version), signal)))
    throw wrong(`does not speak KMIP ${version}: set version to another one`);
  const byName = await client.call(locate(version, name), signal);
  if (byName.length > 1)
    throw wrong(`has more than one key with the name ${name}: give the unique identifier of the one to use`);
  const [located] = byName;
  const attributesOf = (id: string) => client.call(getAttributes(version, id), signal);
  // Both are asked for: a key that was given the identifier of another as its name must not take its place.
  const byId = name === located ? undefined : await attributesOf(name).catch(unlessRefused(located));
  if (located === undefined && byId === undefined)
    throw new KmsError('ERR_KMS_KEY_NOT_FOUND', `${where} has no key with the identifier or name ${name}`);
  if (located !== undefined && byId !== undefined)
    throw wrong(`has a key with the name ${name} and another one with that identifier: rename the first`);
  const id = located ?? name;
  const key = byId ?? (await attributesOf(id));
  if (key.algorithm !== ALGORITHM_AES || key.length !== KEY_BITS)
    throw wrong(`has ${name}, but that is no AES key of ${KEY_BITS} bits: make one and name it`);
  const needed = USAGE.encrypt | USAGE.decrypt;
  if ((key.usage & needed) !== needed)
    throw wrong(
      `has ${name}, but its Cryptographic Usage Mask lacks Encrypt or Decrypt: make a key with both`,
    );
  return { id, ...key };
}

/** No such identifier; where the name was found, any refusal says so. */
function unlessRefused(located: string | undefined): (error: unknown) => undefined {
  return (error) => {
    if (!(error instanceof KmipRefusal)) throw error;
    const missing = error.reason === REASON.itemNotFound || error.reason === REASON.objectNotFound;
    if (!missing && located === undefined) throw error;
  };
}
