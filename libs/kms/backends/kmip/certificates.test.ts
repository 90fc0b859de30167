import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { describe, test } from 'node:test';
import { freePort } from '@asterism/testkit/free-port';
import { temporaryFolder } from '@asterism/testkit/temporary-folder';
import { testCa } from '@asterism/testkit/test-ca';
import { open } from './backend.ts';
import { KEY_NAME } from './honest-script.fixture.ts';
import {
  CONTEXT,
  ca,
  client,
  fails,
  honest,
  key,
  NONSENSE,
  own,
  scripted,
  tlsOf,
  using,
} from './trial.fixture.ts';

describe('servers that are not who they should be', () => {
  for (const [what, name, certificate] of [
    [
      'of another authority',
      undefined,
      async () => (await testCa()).issue({ name: 'localhost', usage: 'server', addresses: ['127.0.0.1'] }),
    ],
    ['for another name', 'kmip.example', async () => own],
    [
      'that ran out',
      undefined,
      () => ca.issue({ name: 'localhost', usage: 'server', addresses: ['127.0.0.1'], expired: true }),
    ],
    [
      'for clients',
      undefined,
      () => ca.issue({ name: 'localhost', usage: 'client', addresses: ['127.0.0.1'] }),
    ],
  ] as const) {
    test(`a certificate ${what}: nothing is sent`, async () => {
      await scripted(
        honest,
        async (kek, server) => {
          await fails(kek.wrap(key, CONTEXT), NONSENSE, 'user-name', 'pass-word');
          await assert.rejects(kek.status(), /nothing was sent/);
          assert.deepEqual(server.asked, []);
        },
        tlsOf(await certificate()),
        { ...(name !== undefined && { serverName: name }), username: 'user-name', password: 'pass-word' },
      );
    });
  }

  test('TLS 1.1 is not spoken', async () => {
    const old = { minVersion: 'TLSv1.1', maxVersion: 'TLSv1.1', ciphers: 'DEFAULT@SECLEVEL=0' };
    await scripted(
      honest,
      async (kek, server) => {
        await fails(kek.wrap(key, CONTEXT), NONSENSE);
        await assert.rejects(kek.status(), /does not speak TLS 1\.2/);
        assert.equal(server.connections, 0);
      },
      old,
    );
  });

  for (const version of ['TLSv1.2', 'TLSv1.3'] as const) {
    test(`${version} is spoken`, async () => {
      const only = { minVersion: version, maxVersion: version };
      await scripted(honest, (kek) => kek.status(), only);
    });
  }

  // In TLS 1.3 a client learns that its certificate is refused after its handshake is over. Node's own server ends such
  // connections without an alert, so this one is OpenSSL's.
  test('a client certificate that is refused in TLS 1.3: credentials', async () => {
    await using openssl = await opensslServer();
    const foreign = await (await testCa()).issue({ name: 'asterism', usage: 'client' });
    await using(
      openssl.port,
      (kek) => fails(kek.wrap(key, CONTEXT), { name: 'KmsError', code: 'ERR_KMS_CREDENTIALS' }),
      { client: foreign },
    );
  });
});

describe('settings', () => {
  const parameters = { host: '127.0.0.1', keyName: KEY_NAME };
  const credentials = () => ({
    caCertificate: ca.pem,
    clientCertificate: client.certificate,
    clientKey: client.key,
  });

  test('that cannot be used are refused before anything is sent', async () => {
    const good = credentials();
    const wrong = { code: 'ERR_KMS_CREDENTIALS' };
    await fails(open({ parameters: { ...parameters, port: '65536' }, credentials: good }), {
      code: 'ERR_KMS_SETTINGS',
    });
    for (const other of [
      { caCertificate: undefined },
      { clientKey: undefined },
      { clientCertificate: undefined },
      { clientKey: own.key },
      { clientKey: 'no PEM' },
      { clientCertificate: client.certificate.slice(0, 100) },
      { password: 'pass-word' },
    ])
      await fails(open({ parameters, credentials: { ...good, ...other } }), wrong, 'pass-word', own.key);
  });
});

/** OpenSSL's test server, which asks for certificates of our authority and says why it refuses one. */
async function opensslServer(): Promise<AsyncDisposable & { readonly port: number }> {
  const folder = await temporaryFolder();
  const port = await freePort();
  await writeFile(folder.file('ca.crt'), ca.pem);
  await writeFile(folder.file('own.pem'), `${own.certificate}\n${own.key}\n`, { mode: 0o600 });
  const files = [`-cert=${folder.file('own.pem')}`, `-CAfile=${folder.file('ca.crt')}`].flatMap((it) =>
    it.split('='),
  );
  const child = spawn(
    'setpriv',
    [
      '--pdeathsig',
      'KILL',
      'openssl',
      's_server',
      '-accept',
      `127.0.0.1:${port}`,
      '-tls1_3',
      '-Verify',
      '1',
      '-verify_return_error',
      // Without it, the server ends with its own input.
      '-www',
      ...files,
    ],
    { stdio: ['ignore', 'pipe', 'ignore'] },
  );
  const ended = once(child, 'exit');
  await Promise.race([once(child.stdout, 'data'), ended]);
  return {
    port,
    async [Symbol.asyncDispose]() {
      child.kill('SIGKILL');
      await ended;
      await folder[Symbol.asyncDispose]();
    },
  };
}
