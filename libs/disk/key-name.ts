import { ParseError } from '@asterism/errors/errors';

/**
 * Which key opens a state disk, written `<generation>.<change>`, e.g. `1.0`: the generation of the key encryption key
 * that it was derived of (1 where a KMS wraps keys), and how often the key was changed within it.
 */
export interface DiskKeyName {
  /** 1 to 999,999,999. */
  readonly generation: number;
  /** 0 to 999,999,999. */
  readonly change: number;
}

/** The key of a disk that joined before keys had names. */
export const FIRST_DISK_KEY = '1.0';

export const DISK_KEY_NAME = /^([1-9][0-9]{0,8})\.(0|[1-9][0-9]{0,8})$/;

/** @throws ParseError ERR_DISK_KEY_NAME */
export function parseDiskKeyName(text: string): DiskKeyName {
  const [, generation, change] = DISK_KEY_NAME.exec(text) ?? [];
  if (generation === undefined || change === undefined)
    throw new ParseError('the name of a disk key is not GENERATION.CHANGE, e.g. 1.0', {
      code: 'ERR_DISK_KEY_NAME',
    });
  return { generation: Number(generation), change: Number(change) };
}

/** @throws ParseError ERR_DISK_KEY_NAME a number is out of bounds */
export function renderDiskKeyName({ generation, change }: DiskKeyName): string {
  const text = `${generation}.${change}`;
  parseDiskKeyName(text);
  return text;
}

/**
 * Id of the data key, without the `key-` of DEK ids. The first key of a disk is called by its UUID alone, as v2.6 did.
 * @param uuid LUKS2 UUID in lower case
 */
export function diskDataKeyId(uuid: string, { change }: DiskKeyName): string {
  return change === 0 ? uuid : `${uuid}.${change}`;
}
