import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, before, describe, test } from 'node:test';
import { createSecureContext } from 'node:tls';
import { fromHex, toHex, toUtf8 } from '@asterism/bytes/encoding';
import { type KmipServer, kmipSkip, startKmip } from '@asterism/testkit/counterparts/kmip';
import { kekContract } from '@asterism/testkit/kms-contract';
import { testCa } from '@asterism/testkit/test-ca';
import type { Kek } from '../../kek.ts';
import { open } from './backend.ts';
import { KmipClient } from './client.ts';
import { encodeRequest, type KmipVersion } from './messages.ts';
import { decryptGcm, discoverVersions, encryptGcm, getAttributes, keyWrap, locate } from './operations.ts';

const CONTEXT = 'asterism/v1 cluster=00 dek=key-test';
const key = () => new Uint8Array(randomBytes(32));
let server: KmipServer;
let names = 0;

interface Others {
  readonly keyName: string;
  readonly version?: string;
  readonly serverName?: string;
  readonly host?: string;
  readonly caCertificate?: string;
  readonly client?: { readonly certificate: string; readonly key: string };
  readonly login?: { readonly username: string; readonly password: string };
}

/** A KEK at the server, with what a test has otherwise. */
function kekOf({
  client = server.client,
  caCertificate = server.ca.pem,
  login,
  ...parameters
}: Others): Promise<Kek> {
  return open({
    parameters: { host: server.host, port: String(server.port), ...parameters },
    credentials: { caCertificate, clientCertificate: client.certificate, clientKey: client.key, ...login },
  });
}

/** Name and identifier of a new active KEK. */
async function newKek(): Promise<{ name: string; id: string }> {
  const name = `kek-${names++}`;
  return { name, id: await server.createKek(name) };
}

async function using<T>(kek: Kek, use: (kek: Kek) => Promise<T>): Promise<T> {
  try {
    return await use(kek);
  } finally {
    await kek.close();
  }
}

describe('keys on a PyKMIP server', { skip: kmipSkip() }, () => {
  before(async () => {
    server = await startKmip();
  });
  after(() => server[Symbol.asyncDispose]());

  for (const version of ['1.4', '2.0'] as const) {
    describe(`KMIP ${version}`, () => {
      let kek: Kek;
      before(async () => {
        const { name } = await newKek();
        kek = await kekOf({ keyName: name, version });
      });
      after(() => kek.close());
      kekContract(() => kek, { bindsContext: true });

      test('a key is found by its identifier or its name, and is the same', async () => {
        const { name, id } = await newKek();
        const secret = key();
        const wrapped = await using(await kekOf({ keyName: name, version }), (it) =>
          it.wrap(secret, CONTEXT),
        );
        assert.deepEqual([wrapped.keyId, wrapped.mechanism, wrapped.wrappedKey.length], [id, 1, 60]);
        await using(await kekOf({ keyName: id, version }), async (it) => {
          assert.deepEqual(await it.status(), {
            keyId: id,
            enabled: true,
            detail: `Active, AES-256, used by AES-GCM, KMIP ${version}`,
          });
          assert.deepEqual(await it.unwrap(wrapped, CONTEXT), secret);
        });
      });

      test('PyKMIP reads our requests, and writes them as the same bytes', async () => {
        const box = { ciphertext: key(), tag: key().slice(16) };
        // PyKMIP 0.10 pads a text that it read wrongly when it writes it, if its length is a multiple of 8, as that of
        // `Cryptographic Usage Mask`: those requests of KMIP 1.4 are compared by what its server answers to them only.
        for (const operation of [
          discoverVersions(version),
          locate(version, 'kek'),
          ...(version === '2.0' ? [getAttributes(version, 'kek')] : []),
          encryptGcm('1', key(), key().slice(20), toUtf8('context')),
          decryptGcm('1', box, key().slice(20), toUtf8('context')),
          keyWrap('encrypt', '1', key()),
        ]) {
          const id = new Uint8Array(randomBytes(8));
          const login = { username: 'me', password: 'secret' };
          const { name, payload } = operation;
          const request = encodeRequest({ version, operation: name, id, payload, login });
          assert.equal(toHex(await server.reencode(request, version)), toHex(request), name);
        }
      });
    });
  }

  test('what one version wrapped, the other unwraps', async () => {
    const { name } = await newKek();
    const secret = key();
    const wrapped = await using(await kekOf({ keyName: name, version: '1.4' }), (it) =>
      it.wrap(secret, CONTEXT),
    );
    const read = await using(await kekOf({ keyName: name, version: '2.0' }), (it) =>
      it.unwrap(wrapped, CONTEXT),
    );
    assert.deepEqual(read, secret);
  });

  // OASIS test case CS-BC-M-GCM-1 of the KMIP Profiles, with the key filled up to 256 bits: the vector is of the
  // GCM specification (McGrew and Viega), test case 14.
  test('a known answer of AES-256-GCM', async () => {
    const id = await server.register({ name: 'zero', value: new Uint8Array(32) });
    await server.activate(id);
    const client = clientOf('1.4');
    const iv = new Uint8Array(12);
    const box = await client.call(encryptGcm(id, new Uint8Array(16), iv, undefined));
    assert.equal(toHex(box.ciphertext), 'cea7403d4d606b6e074ec5d3baf39d18');
    assert.equal(toHex(box.tag), 'd0d1c8a799996bf0265b98b5d48ab919');
    assert.deepEqual(await client.call(decryptGcm(id, box, iv, undefined)), new Uint8Array(16));
    const forged = { ...box, tag: fromHex('00d1c8a799996bf0265b98b5d48ab919') };
    await assert.rejects(client.call(decryptGcm(id, forged, iv, undefined)), { name: 'KmipRefusal' });
    client.close();
  });

  test('wrapped by another key, or in another way: refused without asking', async () => {
    const [one, two] = [await newKek(), await newKek()];
    const wrapped = await using(await kekOf({ keyName: one.name }), (it) => it.wrap(key(), CONTEXT));
    const refused = { code: 'ERR_KMS_UNWRAP' };
    await using(await kekOf({ keyName: two.name }), async (it) => {
      await assert.rejects(it.unwrap(wrapped, CONTEXT), refused);
      await assert.rejects(it.unwrap({ ...wrapped, keyId: two.id }, CONTEXT), refused);
    });
    await using(await kekOf({ keyName: one.name }), async (it) => {
      for (const mechanism of [0, 2, 3])
        await assert.rejects(it.unwrap({ ...wrapped, mechanism }, CONTEXT), refused);
    });
  });

  test('a key that is not active, then active, revoked and destroyed', async () => {
    const id = await server.register({ name: 'life', value: key() });
    const disabled = { name: 'KmsError', code: 'ERR_KMS_KEY_DISABLED' };
    await using(await kekOf({ keyName: 'life' }), async (kek) => {
      assert.equal((await kek.status()).enabled, false);
      await assert.rejects(kek.wrap(key(), CONTEXT), { ...disabled, message: /is Pre-Active/ });
      await server.activate(id);
      assert.equal((await kek.status()).enabled, true);
      const wrapped = await kek.wrap(key(), CONTEXT);
      await server.revoke(id, 'CESSATION_OF_OPERATION');
      assert.equal((await kek.status()).enabled, false);
      await assert.rejects(kek.wrap(key(), CONTEXT), { ...disabled, message: /is Deactivated/ });
      await assert.rejects(kek.unwrap(wrapped, CONTEXT), disabled);
      await server.destroy(id);
      const gone = { name: 'KmsError', code: 'ERR_KMS_KEY_NOT_FOUND' };
      await assert.rejects(kek.unwrap(wrapped, CONTEXT), gone);
      await assert.rejects(kek.status(), gone);
    });
  });

  test('a compromised key is not used', async () => {
    const { name, id } = await newKek();
    await using(await kekOf({ keyName: name }), async (kek) => {
      const wrapped = await kek.wrap(key(), CONTEXT);
      await server.revoke(id, 'KEY_COMPROMISE');
      await assert.rejects(kek.unwrap(wrapped, CONTEXT), {
        code: 'ERR_KMS_KEY_DISABLED',
        message: /is Compromised/,
      });
    });
  });

  test('no key, two keys of a name, a name that is an identifier: refused', async () => {
    await using(await kekOf({ keyName: 'nobody' }), (kek) =>
      assert.rejects(kek.status(), { code: 'ERR_KMS_KEY_NOT_FOUND', message: /nobody/ }),
    );
    await server.createKek('twin');
    await server.createKek('twin');
    await using(await kekOf({ keyName: 'twin' }), (kek) =>
      assert.rejects(kek.wrap(key(), CONTEXT), { code: 'ERR_KMS_SETTINGS', message: /more than one key/ }),
    );
    const { id } = await newKek();
    await server.createKek(id);
    await using(await kekOf({ keyName: id }), (kek) =>
      assert.rejects(kek.wrap(key(), CONTEXT), { code: 'ERR_KMS_SETTINGS', message: /rename/ }),
    );
  });

  test('keys that are too short, of another algorithm or for other uses: refused before a key is sent', async () => {
    for (const [name, made] of [
      ['short', { value: key().slice(16) }],
      ['des', { value: key().slice(8), algorithm: 'TRIPLE_DES' }],
      ['encrypts', { value: key(), usage: ['ENCRYPT'] }],
      ['decrypts', { value: key(), usage: ['DECRYPT'] }],
    ] as const) {
      const id = await server.register({ name, ...made });
      await server.activate(id);
      await using(await kekOf({ keyName: name }), (kek) =>
        assert.rejects(kek.wrap(key(), CONTEXT), { code: 'ERR_KMS_SETTINGS', message: new RegExp(name) }),
      );
    }
  });

  test('the key of another client: denied', async () => {
    const { name, id } = await newKek();
    const other = await server.ca.issue({ name: 'somebody-else', usage: 'client' });
    // To others PyKMIP does not list its name.
    await using(await kekOf({ keyName: name, client: other }), (kek) =>
      assert.rejects(kek.wrap(key(), CONTEXT), { code: 'ERR_KMS_KEY_NOT_FOUND' }),
    );
    await using(await kekOf({ keyName: id, client: other }), (kek) =>
      assert.rejects(kek.wrap(key(), CONTEXT), { code: 'ERR_KMS_DENIED' }),
    );
  });

  test('client certificates of another authority, that ran out, or for servers: refused as credentials', async () => {
    const { name } = await newKek();
    for (const client of [
      await (await testCa()).issue({ name: 'asterism', usage: 'client' }),
      await server.ca.issue({ name: 'asterism', usage: 'client', expired: true }),
      await server.ca.issue({ name: 'asterism', usage: 'server' }),
    ]) {
      await using(await kekOf({ keyName: name, client }), (kek) =>
        assert.rejects(kek.wrap(key(), CONTEXT), { name: 'KmsError', code: 'ERR_KMS_CREDENTIALS' }),
      );
    }
  });

  test('a server of another authority, or with another name, is sent nothing', async () => {
    const { name } = await newKek();
    const foreign = await testCa();
    for (const other of [
      { caCertificate: foreign.pem },
      { serverName: 'kmip.example' },
      { serverName: '127.0.0.2' },
    ]) {
      await using(await kekOf({ keyName: name, ...other }), (kek) =>
        assert.rejects(kek.wrap(key(), CONTEXT), { code: 'ERR_KMS_ANSWER', message: /nothing was sent/ }),
      );
    }
    await using(await kekOf({ keyName: name, serverName: 'localhost' }), (kek) => kek.status());
  });

  test('a server that was killed: unavailable; started again, the next call works', async () => {
    const { name } = await newKek();
    await using(await kekOf({ keyName: name }), async (kek) => {
      const secret = key();
      const wrapped = await kek.wrap(secret, CONTEXT);
      await server.kill();
      const down = { name: 'KmsUnavailableError', code: 'ERR_KMS_UNAVAILABLE' };
      await assert.rejects(kek.unwrap(wrapped, CONTEXT), down);
      await assert.rejects(kek.status(), down);
      await server.start();
      assert.deepEqual(await kek.unwrap(wrapped, CONTEXT), secret);
    });
  });

  test('a restart between two calls is not noticed', async () => {
    const { name } = await newKek();
    await using(await kekOf({ keyName: name }), async (kek) => {
      const wrapped = await kek.wrap(key(), CONTEXT);
      await server.kill();
      await server.start();
      await kek.unwrap(wrapped, CONTEXT);
    });
  });

  // PyKMIP reads them and, without a plugin, does not check them: that they are sent, messages.test.ts shows.
  test('a server that wants no user name takes one', async () => {
    const { name } = await newKek();
    const login = { username: 'me', password: 'secret' };
    await using(await kekOf({ keyName: name, login }), (kek) => kek.status());
  });

  test('a hundred calls at once', async () => {
    const { name } = await newKek();
    await using(await kekOf({ keyName: name }), async (kek) => {
      const secrets = Array.from({ length: 100 }, key);
      const wrapped = await Promise.all(secrets.map((secret, i) => kek.wrap(secret, `dek-${i}`)));
      const read = await Promise.all(wrapped.map((it, i) => kek.unwrap(it, `dek-${i}`)));
      assert.deepEqual(read, secrets);
    });
  });

  function clientOf(version: KmipVersion): KmipClient {
    const { certificate, key } = server.client;
    return new KmipClient({
      host: server.host,
      port: server.port,
      serverName: server.host,
      secureContext: createSecureContext({ ca: server.ca.pem, cert: certificate, key }),
      where: 'PyKMIP',
      version,
      login: undefined,
    });
  }
});
