import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, before, describe, test } from 'node:test';
import { STORE_HOMES } from '@asterism/kms/catalogue';
import type { DekStore } from '@asterism/kms/store';
import { type Gcs, gcsProgram, startGcs } from '@asterism/testkit/counterparts/gcs';
import { storeContract } from '@asterism/testkit/kms-contract';
import { testCa } from '@asterism/testkit/test-ca';
import { faultOf } from '../../values.ts';
import { open } from './store.ts';

const bytes = (length: number) => new Uint8Array(randomBytes(length));

const found = await gcsProgram();

describe('Google Cloud Storage', { skip: 'skip' in found && found.skip }, () => {
  let gcs: Gcs;
  let serviceAccountKey: string;
  let store: DekStore;
  const settings = (parameters: Record<string, string> = {}, credentials: Record<string, string> = {}) => ({
    parameters: { projectID: 'project', bucket: 'keys', endpoint: gcs.front.address, ...parameters },
    credentials: { serviceAccountKey, caCertificate: gcs.front.ca, ...credentials },
  });
  const names = async (from: DekStore) => {
    const listed: string[] = [];
    for await (const name of from.list()) listed.push(name);
    return listed.sort();
  };

  before(async () => {
    gcs = await startGcs((found as { program: string }).program, { keep: true });
    serviceAccountKey = gcs.front.serviceAccountKey();
    await gcs.createBucket('keys');
    store = await open(settings({ prefix: 'asterism/mini/' }));
  });
  after(async () => {
    await store?.close();
    await gcs?.[Symbol.asyncDispose]();
  });

  storeContract(() => store);

  test('the settings are those of the catalogue', () => {
    const { parameters, credentials } = settings({ prefix: 'asterism/mini/' });
    assert.equal(faultOf(STORE_HOMES.gcp.parameters, parameters), undefined);
    assert.equal(faultOf(STORE_HOMES.gcp.credentials, credentials), undefined);
  });

  test('objects of others are neither listed nor met', async () => {
    await store.create('key-mine', bytes(10));
    const root = await open(settings());
    const other = await open(settings({ prefix: 'asterism/other/' }));
    await other.create('key-mine', bytes(10));
    await root.create('key-root', bytes(10));
    for (const name of [
      'asterism/mini/deeper/key-no',
      'asterism/mini/_no',
      'asterism/minikey-no',
      'asterism/mini/',
    ])
      await gcs.put('keys', name, bytes(10));
    assert.deepEqual(await names(store), ['key-mine']);
    assert.deepEqual(await names(other), ['key-mine']);
    assert.deepEqual(await names(root), ['key-root']);
    const { version } = (await other.get('key-mine'))!;
    assert.equal(await other.remove('key-mine', version), 'removed');
    assert.ok(await store.get('key-mine'));
    await store.remove('key-mine', (await store.get('key-mine'))!.version);
    await root.close();
    await other.close();
  });

  test('a bucket that is not there is not made', async () => {
    const none = await open(settings({ bucket: 'no-such-bucket' }));
    const missing = { name: 'KmsError', code: 'ERR_STORE_NOT_FOUND' };
    await assert.rejects(none.get('key-one'), missing);
    await assert.rejects(none.create('key-one', bytes(10)), missing);
    await assert.rejects(none.replace('key-one', bytes(10), '1'), missing);
    await assert.rejects(none.remove('key-one', '1'), missing);
    await assert.rejects(names(none), missing);
    await none.close();
  });

  test('a version that is no generation is refused: 0 would create', async () => {
    for (const version of ['0', '', '-1', '1&ifGenerationMatch=0', 'x']) {
      await assert.rejects(store.replace('key-one', bytes(1), version), { code: 'ERR_STORE_SETTINGS' });
      await assert.rejects(store.remove('key-one', version), { code: 'ERR_STORE_SETTINGS' });
    }
  });

  test('a burst of throttling is sat out; a longer one is reported', async () => {
    gcs.front.refuse(2, 429);
    assert.equal(await store.get('key-one'), undefined);
    gcs.front.refuse(3, 503);
    await assert.rejects(store.get('key-one'), {
      name: 'KmsUnavailableError',
      code: 'ERR_STORE_UNAVAILABLE',
    });
    gcs.front.refuse(1, 429, { 'retry-after': '60' });
    await assert.rejects(store.get('key-one'), { code: 'ERR_STORE_THROTTLED', retryAfterMs: 60_000 });
  });

  test('an expired token is replaced; without scope it is denied; without an account there is none', async () => {
    gcs.front.expireTokens();
    assert.equal(await store.get('key-one'), undefined);
    gcs.front.grantScope = 'https://www.googleapis.com/auth/cloudkms';
    const denied = await open(settings());
    await assert.rejects(denied.get('key-one'), { code: 'ERR_STORE_DENIED' });
    await denied.close();
    gcs.front.grantScope = undefined;
    const stranger = gcs.front.serviceAccountKey({ client_email: 'nobody@project.iam.gserviceaccount.com' });
    const refused = await open(settings({}, { serviceAccountKey: stranger }));
    await assert.rejects(refused.get('key-one'), { code: 'ERR_STORE_CREDENTIALS' });
    await refused.close();
  });

  test('a server with a certificate of another authority is not spoken to', async () => {
    const own = await open(settings({}, { caCertificate: (await testCa('another')).pem }));
    await assert.rejects(own.get('key-one'), { name: 'KmsError', code: 'ERR_STORE_ANSWER' });
    await own.close();
  });

  test('a store that is killed is unavailable, and has everything when it is back', async () => {
    const content = bytes(100);
    await store.create('key-kept', content);
    await gcs.kill();
    await assert.rejects(store.get('key-kept'), { code: 'ERR_STORE_UNAVAILABLE' });
    await gcs.start();
    assert.deepEqual((await store.get('key-kept'))?.bytes, content);
  });
});
