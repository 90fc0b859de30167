import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { after, before, describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { runChecked } from '@asterism/runtime/program';
import { startHsm, type TestHsm } from '@asterism/testkit/counterparts/hsm';
import { documentedCommands } from '@asterism/testkit/documented-commands';
import { freePort } from '@asterism/testkit/free-port';
import { type TemporaryFolder, temporaryFolder } from '@asterism/testkit/temporary-folder';
import { testCa } from '@asterism/testkit/test-ca';
import { open } from './backend.ts';

describe('the commands of docs/keys/pkcs11.md', () => {
  let hsm: TestHsm;
  let folder: TemporaryFolder;
  let port: number;
  let stop = async () => {};

  before(async () => {
    hsm = await startHsm();
    folder = await temporaryFolder();
    const [makeKey, makeCertificates, serve, ...more] = await documentedCommands('keys/pkcs11.md');
    assert.ok(makeKey && makeCertificates && serve && more.length === 0);
    const env = {
      PATH: process.env.PATH ?? '',
      HOME: folder.path,
      SOFTHSM2_CONF: hsm.configuration,
      PIN: hsm.pin,
    };
    for (const block of [makeKey, makeCertificates])
      await runChecked('sh', ['-euc', block], { timeoutMs: 60_000, cwd: folder.path, env });
    port = await freePort();
    const here = serve.replace('OPENSSL-LISTEN:5696', `OPENSSL-LISTEN:${port},bind=127.0.0.1`);
    const child = spawn('setpriv', ['--pdeathsig', 'KILL', 'sh', '-euc', `exec ${here}`], {
      cwd: folder.path,
      env,
      stdio: ['ignore', 'ignore', 'ignore'],
      detached: true,
    });
    const ended = once(child, 'exit');
    stop = async () => {
      // Its process group: socat has a child for each connection.
      process.kill(-child.pid!, 'SIGKILL');
      await ended;
    };
    await listening(port);
  });
  after(async () => {
    await stop();
    await hsm?.[Symbol.asyncDispose]();
    await folder?.[Symbol.asyncDispose]();
  });

  const pem = (name: string) => readFile(folder.file(name), 'utf8');
  const kekOf = async (credentials: object = {}) =>
    open({
      parameters: {
        host: '127.0.0.1',
        serverName: 'hsm.internal',
        port: String(port),
        tokenLabel: 'asterism-hsm',
        keyName: 'asterism-kek',
      },
      credentials: {
        clientCertificate: await pem('asterism.pem'),
        clientKey: await pem('asterism.key'),
        caCertificate: await pem('ca.pem'),
        pin: hsm.pin,
        ...credentials,
      },
    });

  test('make a key that works, behind a server that serves several at once', async () => {
    const keks = await Promise.all([kekOf(), kekOf()]);
    const key = randomBytes(32);
    const wrapped = await keks[0]!.wrap(key, 'context');
    for (const kek of keks) assert.deepEqual(Buffer.from(await kek.unwrap(wrapped, 'context')), key);
    for (const kek of keks) await kek.close();
  });

  test('who has no certificate of the authority is told so, and does not come to the HSM', async () => {
    const foreign = await (await testCa()).issue({ name: 'asterism', usage: 'client' });
    const kek = await kekOf({ clientCertificate: foreign.certificate, clientKey: foreign.key });
    await assert.rejects(kek.status(), {
      name: 'KmsError',
      code: 'ERR_KMS_CREDENTIALS',
      message: /certificate/,
    });
    await kek.close();
  });
});

async function listening(port: number): Promise<void> {
  for (let attempt = 0; attempt < 100; attempt++) {
    const socket = connect(port, '127.0.0.1');
    const there = await Promise.race([
      once(socket, 'connect').then(() => true),
      once(socket, 'error').then(() => false),
    ]).catch(() => false);
    socket.destroy();
    if (there) return;
    await delay(50);
  }
  throw new Error('socat does not listen');
}
