import { randomBytes } from 'node:crypto';
import { zero } from '@asterism/bytes/bytes';
import { fromBase64, toBase64 } from '@asterism/bytes/encoding';
import { clusterId, deriveKey, MEASUREMENT_SECRET_ID } from '@asterism/crypto/derive';
import { ParseError } from '@asterism/errors/errors';
import { z } from 'zod';
import { parseJson } from './strict.ts';

/** Name of the master secret in a workspace. */
export const MASTER_SECRET_FILE = 'asterism-mastersecret.json';

/** The one of the next generation, while a rotation is under way. */
export const NEXT_MASTER_SECRET_FILE = 'asterism-mastersecret.next.json';

/** The root of every key of a cluster. Whoever has it can read all disks. */
export interface MasterSecret {
  /** 16 bytes or more; 32 where generated here. */
  readonly key: Uint8Array;
  /** 32 bytes or more. */
  readonly salt: Uint8Array;
  /** From 1 on; the first one where it is missing. `asterism keys rotate kek` makes the next one. */
  readonly generation?: number;
  /** 32 bytes that the cluster id hangs on, once they do not follow from the key any more: after a rotation. */
  readonly measurementSecret?: Uint8Array;
}

const schema = z.strictObject({
  key: z.string().max(8192),
  salt: z.string().max(8192),
  generation: z.int().min(1).max(1_000_000).optional(),
  measurementSecret: z.string().max(64).optional(),
});

/** The measurement secret (32 bytes, a copy): kept since a rotation, else it follows from the key. */
export function measurementSecretOf({ key, salt, measurementSecret }: MasterSecret): Uint8Array {
  return measurementSecret?.slice() ?? deriveKey(key, salt, MEASUREMENT_SECRET_ID, 32);
}

/** The cluster id (32 bytes) that a master secret and a measurement salt give. */
export function clusterIdOf(secret: MasterSecret, measurementSalt: Uint8Array): Uint8Array {
  const measurementSecret = measurementSecretOf(secret);
  try {
    return clusterId(measurementSecret, measurementSalt);
  } finally {
    zero(measurementSecret);
  }
}

/** 32 random bytes each. */
export function generateMasterSecret(): MasterSecret {
  return { key: new Uint8Array(randomBytes(32)), salt: new Uint8Array(randomBytes(32)) };
}

/**
 * Reads `{"key": base64, "salt": base64}`.
 * @throws ParseError (ERR_MASTER_SECRET); messages never hold what was read
 */
export function parseMasterSecret(json: string, name: string = MASTER_SECRET_FILE): MasterSecret {
  const bad = (why: string, cause?: unknown) =>
    new ParseError(`${name}: ${why}; expected {"key": "<base64>", "salt": "<base64>"}`, {
      code: 'ERR_MASTER_SECRET',
      cause,
    });
  const { key, salt, generation, measurementSecret } = parseJson(json, schema, name);
  const decode = (what: string, value: string) => {
    try {
      return fromBase64(value);
    } catch {
      throw bad(`${what} is not standard base64`);
    }
  };
  const secret: MasterSecret = {
    key: decode('key', key),
    salt: decode('salt', salt),
    ...(generation === undefined ? {} : { generation }),
    ...(measurementSecret === undefined
      ? {}
      : { measurementSecret: decode('measurementSecret', measurementSecret) }),
  };
  if (secret.key.length < 16) throw bad('key has fewer than 16 bytes');
  if (secret.salt.length < 32) throw bad('salt has fewer than 32 bytes');
  if (secret.measurementSecret !== undefined && secret.measurementSecret.length !== 32)
    throw bad('measurementSecret has not 32 bytes');
  if ((secret.generation ?? 1) > 1 && secret.measurementSecret === undefined)
    throw bad('a later generation needs the measurementSecret');
  return secret;
}

/** JSON text as {@link parseMasterSecret} reads it. */
export function renderMasterSecret({ key, salt, generation, measurementSecret }: MasterSecret): string {
  const file = {
    key: toBase64(key),
    salt: toBase64(salt),
    generation,
    measurementSecret: measurementSecret && toBase64(measurementSecret),
  };
  return `${JSON.stringify(file, null, '\t')}\n`;
}
