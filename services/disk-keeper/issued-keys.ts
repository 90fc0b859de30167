import { equal, zero } from '@asterism/bytes/bytes';
import { type DiskKeyToken, parseKeyToken } from '@asterism/disk/key-token';
import { STATE_KEY_LENGTH } from '@asterism/disk/state-disk';
import { AsterismError } from '@asterism/errors/errors';
import type { IssueDiskKeysResponse } from '@asterism/rpc/gen/join_pb';

/** A key of this node's disk, with its name. */
export interface IssuedKey {
  /** 32 bytes. */
  readonly key: Uint8Array;
  readonly name: string;
}

/** What the JoinService says of this node's disk. */
export interface IssuedKeys {
  readonly present: IssuedKey;
  /** undefined: the key is not to be changed. */
  readonly next: IssuedKey | undefined;
  /** Names exactly these keys. */
  readonly token: DiskKeyToken;
  /** Wipes the keys. */
  forget(): void;
}

/** @throws AsterismError ERR_DISK_KEYS the answer contradicts itself; its keys are wiped */
export function readIssuedKeys(answer: IssueDiskKeysResponse): IssuedKeys {
  const { key, nextKey, diskKeyToken } = answer;
  const forget = () => zero(key, nextKey);
  try {
    const token = parseKeyToken(diskKeyToken);
    const present = { key, name: answer.name };
    const next = answer.nextName === '' ? undefined : { key: nextKey, name: answer.nextName };
    const keys = next === undefined ? [present] : [present, next];
    if (keys.some((one) => one.key.length !== STATE_KEY_LENGTH))
      throw bad(`a key has not ${STATE_KEY_LENGTH} bytes`);
    if (next === undefined && nextKey.length !== 0) throw bad('it has a key without a name');
    if (next !== undefined && equal(key, nextKey)) throw bad('both keys are the same');
    if (token.keys.map(({ name }) => name).join() !== keys.map(({ name }) => name).join())
      throw bad('the token names other keys');
    return { present, next, token, forget };
  } catch (error) {
    forget();
    if (error instanceof AsterismError && error.code === 'ERR_DISK_KEYS') throw error;
    throw bad('its token cannot be read', error);
  }
}

function bad(why: string, cause?: unknown): AsterismError {
  return new AsterismError('ERR_DISK_KEYS', `the answer of the JoinService cannot be used: ${why}`, {
    cause,
  });
}
