import { readFile } from 'node:fs/promises';
import { AsterismError } from '@asterism/errors/errors';
import type { ClusterKey } from '@asterism/kms/cluster-uri';

const MIN_KEY = 16;
const MIN_SALT = 32;
const MAX = 4096;

/**
 * The master secret as the Secret asterism-mastersecret is mounted: raw bytes in two files.
 * @throws AsterismError ERR_MASTER_SECRET
 */
export async function readMasterSecret(folder: string): Promise<ClusterKey> {
  const read = async (name: string, minimum: number): Promise<Uint8Array> => {
    const bytes = await readFile(`${folder}/${name}`).catch((cause: unknown) => {
      throw new AsterismError('ERR_MASTER_SECRET', `${folder}/${name} cannot be read`, { cause });
    });
    if (bytes.length < minimum || bytes.length > MAX)
      throw new AsterismError(
        'ERR_MASTER_SECRET',
        `${folder}/${name} has ${bytes.length} bytes; ${minimum} to ${MAX} are needed`,
      );
    return new Uint8Array(bytes);
  };
  return { key: await read('mastersecret', MIN_KEY), salt: await read('salt', MIN_SALT) };
}
