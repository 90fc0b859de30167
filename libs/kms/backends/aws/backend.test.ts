import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { promisify } from 'node:util';
import { type Moto, motoPython, startMoto } from '@asterism/testkit/counterparts/moto';
import { kekContract } from '@asterism/testkit/kms-contract';
import { temporaryFolder } from '@asterism/testkit/temporary-folder';
import type { Kek } from '../../kek.ts';
import type { DekStore } from '../../store.ts';
import { open as openStore } from '../../stores/aws/store.ts';
import { open } from './backend.ts';

const python = await motoPython();
const skip = 'skip' in python && python.skip;
const start = (options = {}) => startMoto((python as { program: string }).program, options);
const CREDENTIALS = { accessKeyID: 'AKIAEXAMPLE', accessKey: 'secret-of-the-test/+=' };
const CONTEXT = 'asterism/v1 test';
const key = () => new Uint8Array(randomBytes(32));
// moto refuses callers of KMS in XML where AWS does it in JSON, so why cannot be known; hostile.test.ts has AWS's answers.
const KMS_REFUSED_BY_MOTO = { code: 'ERR_KMS_ANSWER', message: /HTTP 403/ };

describe('AWS KMS on moto', { skip }, () => {
  let moto: Moto;
  let arn: string;
  const opened: Kek[] = [];
  const openAs = async (parameters: Record<string, string> = {}) => {
    const given = { region: moto.region, keyName: arn, endpoint: moto.endpoint, ...parameters };
    const kek = await open({ parameters: given, credentials: CREDENTIALS });
    opened.push(kek);
    return kek;
  };
  let kek: Kek;

  before(async () => {
    moto = await start();
    arn = await moto.createKey('alias/kek');
    kek = await openAs();
  });
  after(async () => {
    for (const one of opened) await one.close();
    await moto?.[Symbol.asyncDispose]();
  });

  kekContract(() => kek, { bindsContext: true });

  test('a key by its id and by its alias is the same key', async () => {
    const secret = key();
    const wrapped = await kek.wrap(secret, CONTEXT);
    assert.equal(wrapped.keyId, arn);
    for (const keyName of [arn.split('/')[1]!, 'alias/kek']) {
      const other = await openAs({ keyName });
      assert.equal((await other.status()).keyId, arn);
      assert.deepEqual(await other.unwrap(wrapped, CONTEXT), secret);
    }
  });

  test('what v2.6 wrapped, without a context, is unwrapped without one, and only so', async () => {
    const secret = key();
    const { CiphertextBlob } = await moto.kms('Encrypt', {
      KeyId: arn,
      Plaintext: Buffer.from(secret).toString('base64'),
    });
    const wrappedKey = new Uint8Array(Buffer.from(CiphertextBlob as string, 'base64'));
    const wrapped = { mechanism: 1, keyId: arn, wrappedKey };
    assert.deepEqual(await kek.unwrap(wrapped, undefined), secret);
    await assert.rejects(kek.unwrap(wrapped, CONTEXT), { code: 'ERR_KMS_UNWRAP' });
  });

  test('a key that wrapped something shorter than an envelope key', async () => {
    const { CiphertextBlob } = await moto.kms('Encrypt', { KeyId: arn, Plaintext: 'AAAA' });
    const wrappedKey = new Uint8Array(Buffer.from(CiphertextBlob as string, 'base64'));
    const wrapped = { mechanism: 1, keyId: arn, wrappedKey };
    await assert.rejects(kek.unwrap(wrapped, undefined), { code: 'ERR_KMS_ANSWER' });
  });

  test('what another key of the same account wrapped is refused', async () => {
    const other = await openAs({ keyName: await moto.createKey() });
    // moto says AccessDeniedException here, AWS IncorrectKeyException (hostile.test.ts).
    await assert.rejects(kek.unwrap(await other.wrap(key(), CONTEXT), CONTEXT), { code: 'ERR_KMS_DENIED' });
  });

  // moto uses keys in every state; that AWS's refusal has its own code is in hostile.test.ts.
  test('its status says that a key is disabled, or waits for its deletion', async () => {
    const KeyId = (await moto.createKey()).split('/')[1]!;
    const other = await openAs({ keyName: KeyId });
    assert.equal((await other.status()).enabled, true);
    await moto.kms('DisableKey', { KeyId });
    assert.match((await other.status()).detail, /^Disabled, /);
    assert.equal((await other.status()).enabled, false);
    await moto.kms('EnableKey', { KeyId });
    assert.equal((await other.status()).enabled, true);
    await moto.kms('ScheduleKeyDeletion', { KeyId });
    assert.match((await other.status()).detail, /^PendingDeletion, /);
    assert.equal((await other.status()).enabled, false);
  });

  test('another region and another key are not found', async () => {
    const id = arn.split('/')[1]!;
    for (const parameters of [
      { region: 'eu-west-1', keyName: id },
      { region: 'eu-west-1', keyName: 'alias/kek' },
      { keyName: 'alias/other' },
      { keyName: '11111111-2222-3333-4444-555555555555' },
    ]) {
      const other = await openAs(parameters);
      const refusal = { name: 'KmsError', code: 'ERR_KMS_KEY_NOT_FOUND' };
      await assert.rejects(other.status(), refusal);
      await assert.rejects(other.wrap(key(), CONTEXT), refusal);
    }
  });
});

describe('signatures and policies, judged by moto', { skip }, () => {
  const BUCKET = 'example-asterism-keys';
  let moto: Moto;
  let keyName: string;
  before(async () => {
    moto = await start();
    await moto.createBucket(BUCKET);
    keyName = await moto.createKey();
  });
  after(() => moto?.[Symbol.asyncDispose]());

  async function as(
    policy: object,
    change: Record<string, string>,
    use: (kek: Kek, store: DekStore) => Promise<void>,
  ): Promise<void> {
    const credentials = { ...(await moto.createUser(JSON.stringify(policy))), ...change };
    const { region, endpoint } = moto;
    const kek = await open({ parameters: { region, endpoint, keyName }, credentials });
    const parameters = { region, endpoint, bucket: BUCKET, prefix: 'mini/' };
    const store = await openStore({ parameters, credentials });
    await moto.judgeCallers(true);
    try {
      await use(kek, store);
    } finally {
      await moto.judgeCallers(false);
      await kek.close();
      await store.close();
    }
  }

  const list = async (store: DekStore) => {
    const names: string[] = [];
    for await (const name of store.list()) names.push(name);
    return names;
  };

  /** The policy of docs/keys/aws.md. To moto every key is `*`. */
  async function documented() {
    const page = await readFile(join(import.meta.dirname, '../../../../docs/keys/aws.md'), 'utf8');
    const policy = JSON.parse(/```json\n(.*?)```/s.exec(page)![1]!);
    const statements = policy.Statement as { Action: string | string[]; Resource: string }[];
    assert.match(statements[0]!.Resource, /^arn:aws:kms:[^*]+$/);
    statements[0]!.Resource = '*';
    return { policy, actions: statements.flatMap(({ Action }) => Action) };
  }

  test('the permissions that the documentation names are enough, with signatures that are right', async () => {
    await as((await documented()).policy, {}, async (kek, store) => {
      const secret = key();
      assert.equal((await kek.status()).enabled, true);
      assert.deepEqual(await kek.unwrap(await kek.wrap(secret, CONTEXT), CONTEXT), secret);
      assert.equal(await store.create('key-1', secret), 'created');
      assert.equal(await store.create('key-1', secret), 'exists');
      assert.equal(await store.get('key-2'), undefined);
      const { version } = (await store.get('key-1'))!;
      assert.equal(await store.replace('key-1', key(), version), 'replaced');
      assert.deepEqual(await list(store), ['key-1']);
      assert.equal(await store.remove('key-1', (await store.get('key-1'))!.version), 'removed');
    });
  });

  test('each of them is needed', async () => {
    const { actions } = await documented();
    const calls: Record<string, (kek: Kek, store: DekStore) => Promise<unknown>> = {
      'kms:Encrypt': (kek) => kek.wrap(key(), CONTEXT),
      'kms:Decrypt': async (kek) => kek.unwrap(await kek.wrap(key(), CONTEXT), CONTEXT),
      'kms:DescribeKey': (kek) => kek.status(),
      's3:GetObject': (_, store) => store.get('key-1'),
      's3:PutObject': (_, store) => store.create('key-1', key()),
      's3:DeleteObject': async (_, store) => {
        await store.create('key-1', key());
        await store.remove('key-1', (await store.get('key-1'))!.version);
      },
      's3:ListBucket': (_, store) => list(store),
    };
    assert.deepEqual(Object.keys(calls).sort(), actions.toSorted());
    for (const [action, call] of Object.entries(calls)) {
      const Action = actions.filter((one) => one !== action);
      const policy = { Version: '2012-10-17', Statement: [{ Effect: 'Allow', Action, Resource: '*' }] };
      await as(policy, {}, async (kek, store) => {
        const refused = action.startsWith('kms:') ? KMS_REFUSED_BY_MOTO : { code: 'ERR_STORE_DENIED' };
        await assert.rejects(call(kek, store), { name: 'KmsError', ...refused }, action);
      });
    }
  });

  test('a wrong secret and an unknown access key are wrong credentials', async () => {
    const { policy } = await documented();
    for (const change of [{ accessKey: 'wrong' }, { accessKeyID: 'AKIAUNKNOWN' }])
      await as(policy, change, async (kek, store) => {
        await assert.rejects(kek.wrap(key(), CONTEXT), KMS_REFUSED_BY_MOTO);
        await assert.rejects(store.create('key-1', key()), { code: 'ERR_STORE_CREDENTIALS' });
      });
  });
});

/** Opens the KMS in a process with this environment and no other, with no credentials in its settings. */
async function inProcess(env: Record<string, string>, keyName: string): Promise<unknown> {
  await using folder = await temporaryFolder();
  const program = `
    import { open } from ${JSON.stringify(join(import.meta.dirname, 'backend.ts'))};
    const kek = await open({ parameters: { region: 'eu-central-1', keyName: ${JSON.stringify(keyName)} }, credentials: {} });
    const result = await kek.status().catch(({ name, code, message }) => ({ name, code, message }));
    console.log(JSON.stringify(result));
    await kek.close();`;
  const { stdout, stderr } = await promisify(execFile)(
    process.execPath,
    ['--input-type=module', '--eval', program],
    {
      cwd: import.meta.dirname,
      env: {
        PATH: process.env.PATH ?? '',
        HOME: folder.path,
        // The machine that runs the test may have an instance role.
        AWS_EC2_METADATA_DISABLED: 'true',
        ...env,
      },
      timeout: 30_000,
    },
  );
  assert.equal(stderr, '');
  return JSON.parse(stdout);
}

describe('what the machine offers', { skip }, () => {
  let moto: Moto;
  let arn: string;
  before(async () => {
    moto = await start({ tls: true });
    arn = await moto.createKey();
  });
  after(() => moto?.[Symbol.asyncDispose]());
  const keys = { AWS_ACCESS_KEY_ID: 'AKIAEXAMPLE', AWS_SECRET_ACCESS_KEY: 'secret-of-the-test' };

  test('a private authority of the endpoint', async () => {
    const parameters = { region: moto.region, keyName: arn, endpoint: moto.endpoint };
    const kek = await open({ parameters, credentials: { ...CREDENTIALS, caCertificate: moto.ca } });
    assert.equal((await kek.status()).keyId, arn);
    await kek.close();
    const stranger = await open({ parameters, credentials: CREDENTIALS });
    await assert.rejects(stranger.status(), { name: 'KmsError', code: 'ERR_KMS_ANSWER' });
    await stranger.close();
  });

  test('credentials in the environment and in the files of AWS', async () => {
    await using folder = await temporaryFolder();
    await writeFile(folder.file('ca.pem'), moto.ca);
    await writeFile(
      folder.file('credentials'),
      '[default]\naws_access_key_id = AKIAEXAMPLE\naws_secret_access_key = secret-of-the-test\n',
    );
    const env = { AWS_ENDPOINT_URL_KMS: moto.endpoint, NODE_EXTRA_CA_CERTS: folder.file('ca.pem') };
    for (const more of [keys, { AWS_SHARED_CREDENTIALS_FILE: folder.file('credentials') }])
      assert.equal(((await inProcess({ ...env, ...more }, arn)) as { keyId: string }).keyId, arn);
  });

  test('no credentials anywhere', async () => {
    const result = (await inProcess({ AWS_ENDPOINT_URL_KMS: moto.endpoint }, arn)) as { code: string };
    assert.equal(result.code, 'ERR_KMS_CREDENTIALS');
  });

  test('an endpoint in the environment is used by https only', async () => {
    const plain = moto.endpoint.replace('https', 'http');
    const result = (await inProcess({ ...keys, AWS_ENDPOINT_URL_KMS: plain }, arn)) as {
      code: string;
      message: string;
    };
    assert.equal(result.code, 'ERR_KMS_SETTINGS');
    assert.match(result.message, /without TLS/);
  });
});
