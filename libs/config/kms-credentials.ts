import { constants } from 'node:fs';
import { open } from 'node:fs/promises';
import { resolve } from 'node:path';
import { fromUtf8 } from '@asterism/bytes/encoding';
import { AsterismError } from '@asterism/errors/errors';
import { KMS_HOMES, type KmsName, STORE_HOMES, type StoreName } from '@asterism/kms/catalogue';
import type { Value } from '@asterism/kms/settings';
import type { CredentialSource, ExternalKmsConfig } from './kms-config.ts';

/** Credentials of a KMS and its store by the names of the catalogue. Secret. */
export interface KmsCredentials {
  readonly kms: Readonly<Record<string, string>>;
  readonly storage: Readonly<Record<string, string>>;
}

const MAX_BYTES = 64 * 1024;

/** Where the credentials of a KMS and its store are read. */
export interface CredentialSources {
  readonly kms: Readonly<Record<string, CredentialSource>>;
  readonly storage: Readonly<Record<string, CredentialSource>>;
}

/** Reads what a configuration says of credentials, see {@link readCredentials}. */
export function readKmsCredentials(
  { type, credentials, store }: ExternalKmsConfig,
  folder: string,
  env: NodeJS.ProcessEnv,
): Promise<KmsCredentials> {
  return readCredentials(type, store.type, { kms: credentials, storage: store.credentials }, folder, env);
}

/**
 * Reads credentials from where they are.
 *
 * @param folder against which relative file names count: the workspace
 * @throws AsterismError ERR_CREDENTIALS naming the credential and its source, never its value
 */
export async function readCredentials(
  kms: KmsName,
  store: StoreName,
  sources: CredentialSources,
  folder: string,
  env: NodeJS.ProcessEnv,
): Promise<KmsCredentials> {
  return {
    kms: await readAll('kms.credentials', sources.kms, KMS_HOMES[kms].credentials, folder, env),
    storage: await readAll(
      'kms.store.credentials',
      sources.storage,
      STORE_HOMES[store].credentials,
      folder,
      env,
    ),
  };
}

async function readAll(
  section: string,
  sources: Readonly<Record<string, CredentialSource>>,
  known: Readonly<Record<string, Value>>,
  folder: string,
  env: NodeJS.ProcessEnv,
): Promise<Record<string, string>> {
  const found: Record<string, string> = {};
  for (const [name, source] of Object.entries(sources)) {
    const bad = (why: string, cause?: unknown) =>
      new AsterismError('ERR_CREDENTIALS', `${section}.${name}: ${why}`, { cause });
    const text = 'env' in source ? env[source.env] : await readText(resolve(folder, source.file), bad);
    if (text === undefined || text === '')
      throw bad(
        'env' in source ? `the environment variable ${source.env} is not set` : `${source.file} is empty`,
      );
    const given = text.replace(/[\r\n]+$/, '');
    if (known[name]?.pattern.test(given) !== true)
      throw bad(
        `what ${'env' in source ? source.env : source.file} holds has not the form of: ${known[name]?.about ?? ''}`,
      );
    found[name] = given;
  }
  return found;
}

async function readText(path: string, bad: (why: string, cause?: unknown) => AsterismError): Promise<string> {
  // O_NONBLOCK: a FIFO in the place of the file must not hang us.
  const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK).catch((cause: unknown) => {
    throw bad(`${path} cannot be read (${(cause as NodeJS.ErrnoException).code ?? 'unknown'})`, cause);
  });
  try {
    if (!(await file.stat()).isFile()) throw bad(`${path} is no regular file`);
    const buffer = new Uint8Array(MAX_BYTES + 1);
    const { bytesRead } = await file.read(buffer, 0, buffer.length, 0);
    if (bytesRead > MAX_BYTES) throw bad(`${path} is larger than ${MAX_BYTES} bytes`);
    try {
      return fromUtf8(buffer.subarray(0, bytesRead));
    } catch {
      throw bad(`${path} is not UTF-8 text`);
    } finally {
      buffer.fill(0);
    }
  } finally {
    await file.close();
  }
}
