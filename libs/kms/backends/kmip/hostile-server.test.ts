import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { before, describe, test } from 'node:test';
import { inspect } from 'node:util';
import { fromHex, toUtf8 } from '@asterism/bytes/encoding';
import { freePort } from '@asterism/testkit/free-port';
import { temporaryFolder } from '@asterism/testkit/temporary-folder';
import { type KeyPairPem, type TestCa, testCa } from '@asterism/testkit/test-ca';
import { KmsError, KmsUnavailableError } from '../../errors.ts';
import type { Kek, WrappedKey } from '../../kek.ts';
import { open } from './backend.ts';
import { honestScript, KEY_ID, KEY_NAME, refusal } from './honest-script.fixture.ts';
import { bytes, text } from './items.ts';
import { answerTo, type Script, type ScriptedServer, scriptedServer } from './scripted-server.fixture.ts';
import { OPERATION, REASON, TAG } from './tags.ts';

const CONTEXT = 'asterism/v1 cluster=00 dek=key-test';
const key = new Uint8Array(32).fill(0x5a);
const honest = honestScript(new Uint8Array(32).fill(3));
let ca: TestCa;
let own: KeyPairPem;
let client: KeyPairPem;

before(async () => {
  ca = await testCa();
  own = await ca.issue({ name: 'localhost', usage: 'server', addresses: ['127.0.0.1'] });
  client = await ca.issue({ name: 'asterism', usage: 'client' });
});

const tlsOf = ({ certificate, key }: KeyPairPem) => ({ cert: certificate, key, ca: ca.pem });
const serve = (script: Script, tls: object = {}) => scriptedServer({ ...tlsOf(own), ...tls }, script);

interface Others {
  readonly serverName?: string;
  readonly username?: string;
  readonly password?: string;
  readonly client?: KeyPairPem;
}

async function using<T>(port: number, use: (kek: Kek) => Promise<T>, others: Others = {}): Promise<T> {
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

/** Does as the script says for one operation, and is honest otherwise. */
const but =
  (operation: keyof typeof OPERATION, script: Script): Script =>
  (asked, socket) =>
    asked.operation === OPERATION[operation] ? script(asked, socket) : honest(asked, socket);

/** Nothing that is secret, in the error or anything that hangs on it. */
function holdsNoSecret(error: unknown, ...secrets: readonly string[]): void {
  const shown = inspect(error, { depth: 20, showHidden: true });
  for (const secret of [client.key, ...client.key.split('\n').slice(1, -2), ...secrets])
    assert.ok(!shown.includes(secret), 'an error holds a secret');
}

interface Expected {
  readonly name?: string;
  readonly code: string;
}

function isLike(error: unknown, { name, code }: Expected): true {
  assert.ok(error instanceof KmsError || error instanceof KmsUnavailableError, inspect(error));
  assert.equal(error.code, code, inspect(error));
  if (name !== undefined) assert.equal(error.name, name);
  return true;
}

async function fails(
  work: Promise<unknown>,
  expected: Expected,
  ...secrets: readonly string[]
): Promise<void> {
  await assert.rejects(work, (error) => {
    holdsNoSecret(error, ...secrets);
    return isLike(error, expected);
  });
}

const NONSENSE = { name: 'KmsError', code: 'ERR_KMS_ANSWER' };
const DOWN = { name: 'KmsUnavailableError', code: 'ERR_KMS_UNAVAILABLE' };
const header = (length: string) => fromHex(`42007b01${length}`);

describe('answers that are none', () => {
  const answer = honest;
  for (const [what, expected, script] of [
    ['no TTLV', NONSENSE, () => toUtf8('HTTP/1.1 400 Bad Request\r\n\r\n')],
    ['zeros', NONSENSE, () => new Uint8Array(64)],
    ['a length of 4 GiB', NONSENSE, () => header('ffffffff')],
    ['a length just above the bound', NONSENSE, () => header('0000fff9')],
    ['a header, and nothing of the rest', NONSENSE, () => header('00000000')],
    [
      'a good header with garbage',
      NONSENSE,
      () => Buffer.concat([header('00000010'), Buffer.alloc(16, 0xee)]),
    ],
    [
      'an answer with bytes after it',
      NONSENSE,
      (asked, socket) => Buffer.concat([answer(asked, socket)!, Buffer.of(0)]),
    ],
    [
      'two answers',
      NONSENSE,
      (asked, socket) => Buffer.concat([answer(asked, socket)!, answer(asked, socket)!]),
    ],
    [
      'the answer to another request',
      NONSENSE,
      (asked, socket) => answer({ ...asked, id: Buffer.alloc(8) }, socket),
    ],
    [
      'the answer to another operation',
      NONSENSE,
      ({ id }) => answerTo({ id, operation: OPERATION.decrypt } as never, []),
    ],
    [
      'an answer about another key',
      NONSENSE,
      (asked) => answerTo(asked, [text(TAG.uniqueIdentifier, 'other')]),
    ],
    [
      'half an answer, and the end',
      DOWN,
      (asked, socket) => void socket.end(answer(asked, socket)!.subarray(0, 40)),
    ],
    ['the end at once', DOWN, (_, socket) => void socket.destroy()],
  ] as const satisfies readonly (readonly [string, Expected, Script])[]) {
    test(`${what}: the call fails, and the next one works`, async () => {
      await scripted(but('encrypt', script), async (kek, server) => {
        await fails(kek.wrap(key, CONTEXT), expected);
        server.script = honest;
        assert.deepEqual(await kek.unwrap(await kek.wrap(key, CONTEXT), CONTEXT), key);
      });
    });
  }

  test('an answer in single bytes is put together', async () => {
    const slow: Script = (asked, socket) => {
      for (const byte of honest(asked, socket)!) socket.write(Uint8Array.of(byte));
      return undefined;
    };
    await scripted(slow, async (kek) => {
      assert.deepEqual(await kek.unwrap(await kek.wrap(key, CONTEXT), CONTEXT), key);
    });
  });

  test('an answer that nobody asked for ends the connection, and the next call has another', async () => {
    await scripted(honest, async (kek, server) => {
      const wrapped = await kek.wrap(key, CONTEXT);
      server.script = (asked, socket) => {
        setImmediate(() => socket.write(honest(asked, socket)!));
        return honest(asked, socket);
      };
      await kek.unwrap(wrapped, CONTEXT);
      await new Promise((resolve) => setTimeout(resolve, 50));
      server.script = honest;
      await kek.unwrap(wrapped, CONTEXT);
      assert.equal(server.connections, 2);
    });
  });

  test('unwrapped to another length: refused', async () => {
    await scripted(honest, async (kek, server) => {
      const wrapped = await kek.wrap(key, CONTEXT);
      server.script = but('decrypt', (asked) =>
        answerTo(asked, [text(TAG.uniqueIdentifier, KEY_ID), bytes(TAG.data, new Uint8Array(16))]),
      );
      await fails(kek.unwrap(wrapped, CONTEXT), NONSENSE);
    });
  });
});

describe('connections', () => {
  test('many calls at once share one, and ask for the key once', async () => {
    await scripted(honest, async (kek, server) => {
      await Promise.all(Array.from({ length: 50 }, () => kek.wrap(key, CONTEXT)));
      assert.equal(server.connections, 1);
      assert.equal(server.asked.filter((operation) => operation === OPERATION.locate).length, 1);
    });
  });

  test('one that the server ended while it was idle is made anew', async () => {
    await scripted(honest, async (kek, server) => {
      const wrapped = await kek.wrap(key, CONTEXT);
      // Ends it as the next request comes: the worst moment.
      let ended = false;
      server.script = (asked, socket) => {
        if (ended) return honest(asked, socket);
        ended = true;
        socket.destroy();
        return undefined;
      };
      assert.deepEqual(await kek.unwrap(wrapped, CONTEXT), key);
      assert.equal(server.connections, 2);
    });
  });

  test('a signal ends a call that waits, and one that waits behind it; the next call works', async () => {
    const silent: Script = () => undefined;
    await scripted(honest, async (kek, server) => {
      const wrapped = await kek.wrap(key, CONTEXT);
      server.script = silent;
      const stop = new AbortController();
      const calls = [kek.unwrap(wrapped, CONTEXT, stop.signal), kek.status(stop.signal)];
      const settled = Promise.allSettled(calls);
      setTimeout(() => stop.abort(new Error('enough')), 50);
      for (const result of await settled)
        assert.equal(result.status === 'rejected' && result.reason.message, 'enough');
      server.script = honest;
      assert.deepEqual(await kek.unwrap(wrapped, CONTEXT), key);
    });
  });

  test('a server that does not answer: unavailable after ten seconds, whoever waits', async () => {
    await scripted(honest, async (kek, server) => {
      const wrapped = await kek.wrap(key, CONTEXT);
      server.script = () => undefined;
      const results = await Promise.allSettled([
        kek.unwrap(wrapped, CONTEXT),
        kek.unwrap(wrapped, CONTEXT),
        kek.status(),
      ]);
      for (const result of results) {
        assert.equal(result.status, 'rejected');
        isLike(result.reason, DOWN);
        assert.match(result.reason.message, /did not answer within 10 seconds/);
      }
      server.script = honest;
      assert.deepEqual(await kek.unwrap(wrapped, CONTEXT), key);
    });
  });

  test('nobody listens: unavailable', async () => {
    const port = await freePort();
    await using(port, (kek) => fails(kek.wrap(key, CONTEXT), DOWN));
  });

  test('after close nothing is sent', async () => {
    await scripted(honest, async (kek, server) => {
      await kek.close();
      await fails(kek.wrap(key, CONTEXT), { code: 'ERR_KMS_SETTINGS' });
      assert.equal(server.connections, 0);
    });
  });
});

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

describe('refusals', () => {
  for (const [reason, code] of [
    ['itemNotFound', 'ERR_KMS_KEY_NOT_FOUND'],
    ['objectNotFound', 'ERR_KMS_KEY_NOT_FOUND'],
    ['objectDestroyed', 'ERR_KMS_KEY_NOT_FOUND'],
    ['authenticationNotSuccessful', 'ERR_KMS_CREDENTIALS'],
    ['permissionDenied', 'ERR_KMS_DENIED'],
    ['notAuthorised', 'ERR_KMS_DENIED'],
    ['wrongKeyLifecycleState', 'ERR_KMS_KEY_DISABLED'],
    ['objectArchived', 'ERR_KMS_KEY_DISABLED'],
    ['operationNotSupported', 'ERR_KMS_SETTINGS'],
    ['unsupportedCryptographicParameters', 'ERR_KMS_SETTINGS'],
    ['invalidMessage', 'ERR_KMS_SETTINGS'],
    ['generalFailure', 'ERR_KMS_ANSWER'],
    ['serverLimitExceeded', 'ERR_KMS_THROTTLED'],
    ['internalServerError', 'ERR_KMS_UNAVAILABLE'],
  ] as const) {
    test(`${reason} is ${code}`, async () => {
      const script = but('encrypt', (asked) => refusal(asked, REASON[reason], 'because'));
      await scripted(script, (kek) => fails(kek.wrap(key, CONTEXT), { code }));
    });
  }

  test('a reason that nobody knows is shown as its number', async () => {
    const script = but('encrypt', (asked) => refusal(asked, 0x1234, 'strange\u001b[31m'));
    await scripted(script, (kek) =>
      assert.rejects(kek.wrap(key, CONTEXT), {
        code: 'ERR_KMS_ANSWER',
        message: /0x1234 \(strange\?\[31m\)/,
      }),
    );
  });

  test('a server that repeats the password is not quoted', async () => {
    const script: Script = (asked) =>
      refusal(asked, REASON.authenticationNotSuccessful, 'no user-name with pass-word');
    const login = { username: 'user-name', password: 'pass-word' };
    await scripted(
      script,
      (kek) => fails(kek.status(), { code: 'ERR_KMS_CREDENTIALS' }, login.username, login.password),
      {},
      login,
    );
  });

  test('a server that does not speak the version says so', async () => {
    const script = but('discoverVersions', (asked) => answerTo(asked, []));
    await scripted(script, (kek) =>
      assert.rejects(kek.status(), { code: 'ERR_KMS_SETTINGS', message: /does not speak KMIP 1\.4/ }),
    );
  });
});

describe('AES Key Wrap, for a key whose Cryptographic Parameters say NISTKeyWrap', () => {
  const keyWrap = honestScript(new Uint8Array(32).fill(9), 'key wrap');

  test('wraps and unwraps; damaged, truncated and foreign bytes are refused', async () => {
    await scripted(keyWrap, async (kek) => {
      const wrapped = await kek.wrap(key, CONTEXT);
      assert.deepEqual([wrapped.mechanism, wrapped.wrappedKey.length, wrapped.keyId], [2, 40, KEY_ID]);
      assert.deepEqual(await kek.unwrap(wrapped, CONTEXT), key);
      assert.match((await kek.status()).detail, /AES Key Wrap/);
      const refused = { name: 'KmsError', code: 'ERR_KMS_UNWRAP' };
      const flipped = wrapped.wrappedKey.slice();
      flipped[20]! ^= 1;
      for (const wrappedKey of [flipped, wrapped.wrappedKey.subarray(8), new Uint8Array(40)])
        await fails(kek.unwrap({ ...wrapped, wrappedKey }, CONTEXT), refused);
      await fails(kek.unwrap({ ...wrapped, mechanism: 1 }, CONTEXT), refused);
    });
  });

  test('what AES-GCM wrapped is still unwrapped when the key’s parameters change, and the other way round', async () => {
    const one = new Uint8Array(32).fill(9);
    await scripted(honestScript(one), async (kek, server) => {
      const gcm = await kek.wrap(key, CONTEXT);
      server.script = honestScript(one, 'key wrap');
      let wrapped: WrappedKey | undefined;
      await using(server.port, async (later) => {
        assert.deepEqual(await later.unwrap(gcm, CONTEXT), key);
        wrapped = await later.wrap(key, CONTEXT);
      });
      assert.deepEqual(await kek.unwrap(wrapped!, CONTEXT), key);
    });
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

/** A KEK at a server with a script. */
async function scripted(
  script: Script,
  use: (kek: Kek, server: ScriptedServer) => Promise<unknown>,
  tls: object = {},
  others: Others = {},
): Promise<void> {
  await using server = await serve(script, tls);
  await using(server.port, (kek) => use(kek, server), others);
}

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
