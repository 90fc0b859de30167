import { zero } from '@asterism/bytes/bytes';
import { MEASUREMENT_SECRET_ID } from '@asterism/crypto/derive';
import { FIRST_DISK_KEY, parseDiskKeyName } from '@asterism/disk/key-name';
import type { DiskKeyToken } from '@asterism/disk/key-token';
import type { KeyHome } from '@asterism/kms/types';
import { dekIdOf } from './header-store.ts';
import type { MemberKeys } from './unlock.ts';

const KEY_BYTES = 32;

/**
 * What opens a member's disk, from a key home that somebody brought. The header's token says which key opens the disk,
 * or which two while it is being changed; it is a hint, and what does not open the disk is refused by the disk.
 */
export async function recoveryKeys(
  home: KeyHome,
  diskUuid: string,
  token: DiskKeyToken | undefined,
): Promise<MemberKeys> {
  const keys: Uint8Array[] = [];
  const get = async (id: string) => {
    const key = await home.getDek(id, KEY_BYTES);
    keys.push(key);
    return key;
  };
  try {
    const [first, second] = keyNames(home, token);
    const diskKey = await get(dekIdOf(diskUuid, first ?? FIRST_DISK_KEY));
    const nextDiskKey = second === undefined ? undefined : await get(dekIdOf(diskUuid, second));
    return { diskKey, nextDiskKey, measurementSecret: await get(MEASUREMENT_SECRET_ID) };
  } catch (error) {
    zero(...keys);
    throw error;
  }
}

/** A derived key is of its master secret's generation only; a stored one is in the header or it is not. */
function keyNames({ kind, generation }: KeyHome, token: DiskKeyToken | undefined): string[] {
  const keys = token?.keys ?? [];
  if (kind === 'external')
    return keys.flatMap(({ name, envelope }) => (envelope === undefined ? [] : [name]));
  const names = keys.map(({ name }) => name);
  const mine = names.filter((name) => parseDiskKeyName(name).generation === generation);
  return mine.length > 0 ? mine : names;
}
