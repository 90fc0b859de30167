import assert from 'node:assert/strict';
import { inspect } from 'node:util';
import { type KeyPairPem, testCa } from '@asterism/testkit/test-ca';
import { KmsError, KmsUnavailableError } from '../../errors.ts';
import type { Kek } from '../../kek.ts';
import { open } from './backend.ts';
import { honestScript, KEY_NAME } from './honest-script.fixture.ts';
import { type Script, type ScriptedServer, scriptedServer } from './scripted-server.fixture.ts';
import { OPERATION } from './tags.ts';

export const CONTEXT = 'asterism/v1 cluster=00 dek=key-test';
export const key = new Uint8Array(32).fill(0x5a);
export const honest = honestScript(new Uint8Array(32).fill(3));

export const ca = await testCa();
/** Of the server. */
export const own = await ca.issue({ name: 'localhost', usage: 'server', addresses: ['127.0.0.1'] });
export const client = await ca.issue({ name: 'asterism', usage: 'client' });

export const tlsOf = ({ certificate, key }: KeyPairPem) => ({ cert: certificate, key, ca: ca.pem });

interface Others {
  readonly serverName?: string;
  readonly username?: string;
  readonly password?: string;
  readonly client?: KeyPairPem;
}

/** A KEK at a port of this machine. */
export async function using<T>(port: number, use: (kek: Kek) => Promise<T>, others: Others = {}): Promise<T> {
  const { serverName, username, password } = others;
  const { certificate, key } = others.client ?? client;
  const kek = await open({
    parameters: { host: '127.0.0.1', port: String(port), keyName: KEY_NAME, serverName },
    credentials: {
      caCertificate: ca.pem,
      clientCertificate: certificate,
      clientKey: key,
      username,
      password,
    },
  });
  try {
    return await use(kek);
  } finally {
    await kek.close();
  }
}

/** A KEK at a server with a script. */
export async function scripted(
  script: Script,
  use: (kek: Kek, server: ScriptedServer) => Promise<unknown>,
  tls: object = {},
  others: Others = {},
): Promise<void> {
  await using server = await scriptedServer({ ...tlsOf(own), ...tls }, script);
  await using(server.port, (kek) => use(kek, server), others);
}

/** Does as the script says for one operation, and is honest otherwise. */
export const but =
  (operation: keyof typeof OPERATION, script: Script): Script =>
  (asked, socket) =>
    asked.operation === OPERATION[operation] ? script(asked, socket) : honest(asked, socket);
/** Nothing that is secret, in the error or anything that hangs on it. */
function holdsNoSecret(error: unknown, ...secrets: readonly string[]): void {
  const shown = inspect(error, { depth: 20, showHidden: true });
  for (const secret of [client.key, ...client.key.split('\n').slice(1, -2), ...secrets])
    assert.ok(!shown.includes(secret), 'an error holds a secret');
}

export interface Expected {
  readonly name?: string;
  readonly code: string;
}

export function isLike(error: unknown, { name, code }: Expected): true {
  assert.ok(error instanceof KmsError || error instanceof KmsUnavailableError, inspect(error));
  assert.equal(error.code, code, inspect(error));
  if (name !== undefined) assert.equal(error.name, name);
  return true;
}

export async function fails(
  work: Promise<unknown>,
  expected: Expected,
  ...secrets: readonly string[]
): Promise<void> {
  await assert.rejects(work, (error) => {
    holdsNoSecret(error, ...secrets);
    return isLike(error, expected);
  });
}

export const NONSENSE = { name: 'KmsError', code: 'ERR_KMS_ANSWER' };
export const DOWN = { name: 'KmsUnavailableError', code: 'ERR_KMS_UNAVAILABLE' };
