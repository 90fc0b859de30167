import assert from 'node:assert/strict';
import { test } from 'node:test';
import { toHex } from '@asterism/bytes/encoding';
import { temporaryFolder } from '@asterism/testkit/temporary-folder';
import { KMS_HOMES, type KmsName } from './catalogue.ts';
import { renderClusterKmsUri } from './cluster-uri.ts';
import { MemoryStore } from './memory.fixture.ts';
import { clusterHome, openKek, openKeyHome, openStore } from './open.ts';
import { openFolderStore } from './stores/folder/store.ts';
import { parseKmsUri } from './uri.ts';

const range = (from: number, to: number) => Uint8Array.from({ length: to - from + 1 }, (_, i) => from + i);
const secret = { key: range(0, 0x1f), salt: range(0x20, 0x3f) };
const uri = renderClusterKmsUri(secret);
const NO_STORE = 'storage://no-store';
const CLUSTER_ID = 'c1'.repeat(32);
const VAULT = `kms://vault?address=http%3A%2F%2F127.0.0.1%3A1&keyName=kek`;
const BOUND = `${VAULT}&clusterID=${CLUSTER_ID}`;
const S3 = 'storage://aws?bucket=keys&region=eu-central-1';

for (const [what, kms, storage, code] of [
  ['two unknown ones', 'kms://unknown', 'storage://unknown', 'ERR_KMS_UNSUPPORTED'],
  [
    'an external KMS that is not all there',
    'kms://aws?keyName=a2V5',
    'storage://aws?bucket=x',
    'ERR_KMS_URI',
  ],
  ['a storage where none is needed', uri, S3, 'ERR_KMS_UNSUPPORTED'],
  ['no storage URI', uri, '', 'ERR_KMS_UNSUPPORTED'],
  ['nothing', '', '', 'ERR_KMS_UNSUPPORTED'],
  ['another scheme', uri.replace('kms:', 'https:'), NO_STORE, 'ERR_KMS_UNSUPPORTED'],
  ['a name that only begins so', uri.replace('cluster-kms', 'cluster-kms2'), NO_STORE, 'ERR_KMS_UNSUPPORTED'],
  ['no parameters', 'kms://cluster-kms', NO_STORE, 'ERR_KMS_URI'],
  ['a key that is too short', 'kms://cluster-kms?key=a2V5&salt=c2FsdA==', NO_STORE, 'ERR_KMS_URI'],
  ['an external KMS of no cluster', VAULT, S3, 'ERR_KMS_SETTINGS'],
  ['an external KMS of no cluster, of v2.6', `${VAULT}&v26Blobs=accept`, S3, 'ERR_KMS_SETTINGS'],
  ['an external KMS without a storage', BOUND, NO_STORE, 'ERR_KMS_UNSUPPORTED'],
  ['a storage that is not all there', BOUND, 'storage://aws?bucket=x', 'ERR_KMS_URI'],
  ['Kubernetes where there is none', BOUND, 'storage://kubernetes', 'ERR_STORE_SETTINGS'],
] as const) {
  test(`refused: ${what}; nothing of the URIs is in the message`, async () => {
    await assert.rejects(
      openKeyHome({ kmsUri: kms, storageUri: storage }),
      (error: Error & { code?: string }) => {
        assert.equal(error.code, code);
        assert.doesNotMatch(`${error.message}${error.stack}`, /AAECAwQ|a2V5|bucket=|127\.0\.0\.1/);
        return true;
      },
    );
  });
}

const PEM = '-----BEGIN CERTIFICATE-----\nQUFB\n-----END CERTIFICATE-----\n';

for (const [what, given, why] of [
  ['of unknown name', { token: 'QUFB', tokn: 'QUFB' }, /tokn is not known here/],
  ['of the name of a parameter', { keyName: 'QUFB' }, /keyName is not known here/],
  ['with a NUL', { token: 'QUFB\0' }, /token is not what it should be/],
  ['that are no PEM', { token: 'QUFB', caCertificate: 'QUFB' }, /caCertificate is not what it should be/],
  ['that are inherited', { constructor: 'QUFB' }, /constructor is not known here/],
] as const) {
  test(`credentials ${what} are refused and not quoted; the store is closed again`, async () => {
    const store = new MemoryStore();
    const opening = openKeyHome({ kmsUri: BOUND, storageUri: S3, credentials: { kms: given }, store });
    await assert.rejects(opening, (error: Error & { code?: string }) => {
      assert.equal(error.code, 'ERR_KMS_SETTINGS');
      assert.match(error.message, why);
      assert.doesNotMatch(error.message, /QUFB/);
      return true;
    });
    assert.ok(store.closed);
  });
}

test('credentials that a KMS cannot do without are asked for by name', async () => {
  const kmsUri = 'kms://kmip?host=kmip.internal&keyName=kek';
  await assert.rejects(openKek({ kmsUri }), {
    code: 'ERR_KMS_SETTINGS',
    message: /clientCertificate is missing/,
  });
  const kms = { clientCertificate: PEM, clientKey: PEM };
  await assert.rejects(openKek({ kmsUri, credentials: kms }), { message: /caCertificate is missing/ });
});

test('credentials of a store are judged as those of a KMS', async () => {
  for (const credentials of [{ accessKey: '' }, { token: 'QUFB' }])
    await assert.rejects(openStore({ storageUri: S3, credentials }), {
      code: 'ERR_STORE_SETTINGS',
      message: /^the credentials for AWS S3: \w+ is not/,
    });
});

test('every KMS of the catalogue has something that opens it', async () => {
  const uris: Record<KmsName, string> = {
    aws: 'kms://aws?region=eu-central-1&keyName=kek&accessKeyID=AKIA1234&accessKey=x',
    gcp: 'kms://gcp?projectID=project-1&location=europe-west3&keyRing=ring&keyName=kek',
    azure: 'kms://azure?vaultName=vault&vaultType=vault.azure.net&keyName=kek',
    kmip: 'kms://kmip?host=127.0.0.1&port=1&keyName=kek',
    vault: VAULT,
    pkcs11: 'kms://pkcs11?host=127.0.0.1&port=1&tokenLabel=token&keyName=kek',
  };
  const mutual = { clientCertificate: PEM, clientKey: PEM, caCertificate: PEM };
  const credentials: Partial<Record<KmsName, Record<string, string>>> = {
    kmip: mutual,
    pkcs11: { ...mutual, pin: '1234' },
    vault: { token: 'x' },
    gcp: { serviceAccountKey: 'x' },
  };
  for (const name of Object.keys(KMS_HOMES) as KmsName[]) {
    // Nothing answers there: what opens must be ready, or refuse what it was given, in its own words.
    try {
      const kek = await openKek({ kmsUri: uris[name], credentials: credentials[name] });
      await kek.close();
    } catch (error) {
      assert.match(String((error as { code?: unknown }).code), /^ERR_KMS_/, `${name}: ${error}`);
      assert.notEqual((error as { code?: unknown }).code, 'ERR_KMS_UNSUPPORTED', name);
    }
  }
});

test('a home of an external KMS asks for nothing before it must', async () => {
  await using folder = await temporaryFolder();
  const home = await openKeyHome({
    kmsUri: `${BOUND}&generation=2`,
    storageUri: 'storage://kubernetes',
    credentials: { kms: { token: 'x' } },
    store: await openFolderStore(folder.path),
    previous: { kmsUri: BOUND, credentials: { token: 'x' } },
    retry: { tries: 1 },
  });
  assert.deepEqual([home.kind, home.generation], ['external', 2]);
  assert.equal(await home.wrapped('key-x'), undefined);
  // Nobody listens there.
  await assert.rejects(home.getDek('key-x', 32), {
    name: 'KmsUnavailableError',
    code: 'ERR_KMS_UNAVAILABLE',
  });
  await home.close();
});

test('the KMS before a rotation is of the same cluster and an earlier generation', async () => {
  for (const [kmsUri, code] of [
    [`${BOUND}&generation=2`, 'ERR_KMS_SETTINGS'],
    [`${BOUND}&generation=3`, 'ERR_KMS_SETTINGS'],
    [VAULT, 'ERR_KMS_SETTINGS'],
    [`${VAULT}&clusterID=${'c2'.repeat(32)}`, 'ERR_KMS_SETTINGS'],
    [uri, 'ERR_KMS_UNSUPPORTED'],
  ] as const) {
    const store = new MemoryStore();
    const credentials = { token: 'x' };
    const opening = openKeyHome({
      kmsUri: `${BOUND}&generation=2`,
      storageUri: S3,
      credentials: { kms: credentials },
      store,
      previous: { kmsUri, credentials },
    });
    await assert.rejects(opening, { code });
    assert.ok(store.closed);
  }
});

test('the cluster KMS gives the keys of the vectors, and each key again', async () => {
  const keys = await openKeyHome({ kmsUri: uri, storageUri: NO_STORE });
  // key-vectors.md section 2
  const expected = 'ea7fedd14f5a29b1b8545592fc20bfdae06918e4ff447b1a0b8e4f3356005bda';
  for (let i = 0; i < 2; i++) assert.equal(toHex(await keys.getDek('key-measurementSecret', 32)), expected);
  await keys.close();
  await assert.rejects(keys.getDek('', 32), { code: 'ERR_DERIVE' });
  await assert.rejects(keys.getDek('key-x', 0), { code: 'ERR_DERIVE' });
});

test('after a rotation the measurement secret stays, and other keys are of the new master secret', async () => {
  const measurementSecret = await clusterHome(secret).getDek('key-measurementSecret', 32);
  const next = { key: range(0x40, 0x5f), salt: secret.salt, generation: 2, measurementSecret };
  const home = await openKeyHome({ kmsUri: renderClusterKmsUri(next), storageUri: NO_STORE });
  assert.deepEqual([home.kind, home.generation], ['cluster', 2]);
  const given = await home.getDek('key-measurementSecret', 32);
  assert.deepEqual(given, measurementSecret);
  given.fill(0);
  assert.deepEqual(await home.getDek('key-measurementSecret', 32), measurementSecret);
  await assert.rejects(home.getDek('key-measurementSecret', 16), { code: 'ERR_DEK_LENGTH' });
  assert.notDeepEqual(await home.getDek('key-x', 32), await clusterHome(secret).getDek('key-x', 32));
  assert.equal(await home.wrapped('key-x'), undefined);
  assert.equal((await home.status()).enabled, true);
  await home.importDek('key-measurementSecret', measurementSecret);
  await assert.rejects(home.importDek('key-x', new Uint8Array(32)), { code: 'ERR_DEK_EXISTS' });
});

// RFC 5869 A.3 has neither: anybody could compute the keys.
for (const [what, empty] of [
  ['key', { ...secret, key: new Uint8Array() }],
  ['salt', { ...secret, salt: new Uint8Array() }],
] as const) {
  test(`there is no KMS with an empty ${what}`, () => {
    assert.throws(() => clusterHome(empty), { code: 'ERR_DERIVE' });
  });
}

test('the master secret of a cluster URI; none of others', () => {
  assert.deepEqual(parseKmsUri(uri), { kind: 'cluster', generation: 1, ...secret });
  assert.equal(parseKmsUri(VAULT).kind, 'external');
});
