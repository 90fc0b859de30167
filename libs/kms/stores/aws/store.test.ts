import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, before, describe, test } from 'node:test';
import { type Moto, motoPython, startMoto } from '@asterism/testkit/counterparts/moto';
import { storeContract } from '@asterism/testkit/kms-contract';
import type { DekStore } from '../../store.ts';
import { open } from './store.ts';

const python = await motoPython();
const CREDENTIALS = { accessKeyID: 'AKIAEXAMPLE', accessKey: 'secret-of-the-test/+=' };
const bytes = (length: number) => new Uint8Array(randomBytes(length));
const namesOf = async (store: DekStore) => {
  const names: string[] = [];
  for await (const name of store.list()) names.push(name);
  return names;
};

describe('S3 on moto', { skip: 'skip' in python && python.skip }, () => {
  let moto: Moto;
  const opened: DekStore[] = [];
  const openAs = async (bucket: string, parameters: Record<string, string> = {}) => {
    const store = await open({
      parameters: { region: moto.region, bucket, endpoint: moto.endpoint, ...parameters },
      credentials: CREDENTIALS,
    });
    opened.push(store);
    return store;
  };
  let store: DekStore;

  before(async () => {
    moto = await startMoto((python as { program: string }).program);
    await moto.createBucket('asterism-contract');
    store = await openAs('asterism-contract', { prefix: 'asterism/mini/' });
  });
  after(async () => {
    for (const one of opened) await one.close();
    await moto?.[Symbol.asyncDispose]();
  });

  storeContract(() => store);

  test('every name beyond a page of 500, and none of others, whatever their names hold', async () => {
    await moto.createBucket('asterism-many');
    const names = Array.from({ length: 620 }, (_, i) => `key-${String(i).padStart(4, '0')}`);
    for (const name of names) await moto.putObject('asterism-many', `a/${name}`, '{}');
    for (const key of ['key-elsewhere', 'a/b/key-below', 'a/.hidden', 'a/key%20%01%2B', 'b/key-1', 'a/'])
      await moto.putObject('asterism-many', key, '{}');
    assert.deepEqual(await namesOf(await openAs('asterism-many', { prefix: 'a/' })), names);
    assert.deepEqual(await namesOf(await openAs('asterism-many')), ['key-elsewhere']);
  });

  test('without a prefix objects are those that v2.6 wrote: named by the DEK id', async () => {
    await moto.createBucket('asterism-v26');
    await moto.putObject('asterism-v26', 'key-measurementSecret', '{"ciphertext":""}');
    const plain = await openAs('asterism-v26');
    const read = await plain.get('key-measurementSecret');
    assert.equal(Buffer.from(read!.bytes).toString(), '{"ciphertext":""}');
    assert.equal(await plain.create('key-measurementSecret', bytes(3)), 'exists');
  });

  test('a bucket that is not there is not made', async () => {
    const missing = await openAs('asterism-typo');
    const refusal = { name: 'KmsError', code: 'ERR_STORE_NOT_FOUND', message: /create-bucket/ };
    await assert.rejects(missing.get('key-1'), refusal);
    await assert.rejects(missing.create('key-1', bytes(3)), refusal);
    await assert.rejects(missing.replace('key-1', bytes(3), '"x"'), refusal);
    await assert.rejects(missing.remove('key-1', '"x"'), refusal);
    await assert.rejects(namesOf(missing), refusal);
  });

  test('an object that is larger than any wrapped key is not read to its end', async () => {
    await moto.putObject('asterism-contract', 'asterism/mini/key-big', bytes(64 * 1024 + 1));
    await assert.rejects(store.get('key-big'), { name: 'KmsError', code: 'ERR_STORE_ANSWER' });
  });
});
