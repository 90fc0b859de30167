import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, before, describe, test } from 'node:test';
import { type Moto, motoPython, startMoto } from '@asterism/testkit/counterparts/moto';
import { kekContract } from '@asterism/testkit/kms-contract';
import type { Kek } from '../../kek.ts';
import { open } from './backend.ts';

const python = await motoPython();
const CREDENTIALS = { accessKeyID: 'AKIAEXAMPLE', accessKey: 'secret-of-the-test/+=' };
const key = () => new Uint8Array(randomBytes(32));

describe('AWS KMS on moto', { skip: 'skip' in python && python.skip }, () => {
  let moto: Moto;
  let arn: string;
  const opened: Kek[] = [];
  const openAs = async (
    parameters: Record<string, string> = {},
    credentials: Record<string, string> = CREDENTIALS,
  ) => {
    const kek = await open({
      parameters: { region: moto.region, keyName: arn, endpoint: moto.endpoint, ...parameters },
      credentials,
    });
    opened.push(kek);
    return kek;
  };
  let kek: Kek;

  before(async () => {
    moto = await startMoto((python as { program: string }).program);
    arn = await moto.createKey('alias/kek');
    kek = await openAs();
  });
  after(async () => {
    for (const one of opened) await one.close();
    await moto?.[Symbol.asyncDispose]();
  });

  kekContract(() => kek, { bindsContext: true });

  test('a key by its id and by its alias is the same key', async () => {
    const context = 'asterism/v1 test';
    const secret = key();
    const wrapped = await kek.wrap(secret, context);
    assert.equal(wrapped.keyId, arn);
    for (const keyName of [arn.split('/')[1]!, 'alias/kek']) {
      const other = await openAs({ keyName });
      assert.equal((await other.status()).keyId, arn);
      assert.deepEqual(await other.unwrap(wrapped, context), secret);
    }
  });
});
