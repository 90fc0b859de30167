import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { AsterismError, type ParseError } from '@asterism/errors/errors';
import { stringify } from 'yaml';
import { type ExternalKmsConfig, flatKms, kmsSchema } from './kms-config.ts';
import { readKmsCredentials } from './kms-credentials.ts';
import { parseYaml } from './strict.ts';

const AWS = `
type: aws
region: eu-central-1
keyName: alias/asterism
credentials:
  accessKeyID: { env: KEY_ID }
  accessKey: { file: aws-key }
store:
  type: gcp
  projectID: asterism
  bucket: keys
`;
const read = (yaml: string) => parseYaml(yaml, kmsSchema, 'kms');
const refusal = (yaml: string): string => {
  try {
    read(yaml);
  } catch (error) {
    return (error as ParseError).message;
  }
  throw new Error('it was accepted');
};

test('parameters, sources of credentials and the store are told apart, and printed as they were read', () => {
  const kms = read(AWS);
  assert.deepEqual(kms, {
    type: 'aws',
    parameters: { region: 'eu-central-1', keyName: 'alias/asterism' },
    credentials: { accessKeyID: { env: 'KEY_ID' }, accessKey: { file: 'aws-key' } },
    v26Blobs: false,
    store: { type: 'gcp', parameters: { projectID: 'asterism', bucket: 'keys' }, credentials: {} },
  });
  assert.deepEqual(read(stringify(flatKms(kms))), kms);
  assert.deepEqual(read('type: cluster'), { type: 'cluster' });
  const kmip = 'type: kmip\nhost: h\nport: 5696\nkeyName: k\n';
  const pem = 'credentials: {clientCertificate: {file: a}, clientKey: {file: b}, caCertificate: {file: c}}';
  const parsed = read(kmip + pem) as ExternalKmsConfig;
  assert.equal(parsed.parameters.port, '5696');
  assert.equal(parsed.store.type, 'kubernetes');
});

for (const [what, yaml, pattern] of [
  ['an unknown KMS', 'type: keys', /must name a KMS by its type: 'cluster'.*pkcs11/],
  ['a store as KMS', 'type: s3', /must name a KMS/],
  ['a parameter of another KMS', AWS.replace('region:', 'keyRing: x\nregion:'), /keyRing: unknown key/],
  ['a mistyped parameter', AWS.replace('region:', 'reigon:'), /reigon: unknown key; did you mean 'region'/],
  ['a mistyped parameter of the store', AWS.replace('bucket:', 'buckett:'), /did you mean 'bucket'/],
  [
    'a parameter of a bad form',
    AWS.replace('eu-central-1', '"eu central"'),
    /kms\S* region: must be: AWS region/,
  ],
  ['a credential in the file itself', AWS.replace('{ file: aws-key }', 'hunter22'), /must be \{file: PATH\}/],
  ['a source that is both', AWS.replace('{ env: KEY_ID }', '{ env: A, file: b }'), /must be \{file: PATH\}/],
  [
    'missing credentials',
    'type: vault\naddress: https://v\nkeyName: k\nstore: {type: aws}',
    /store\.bucket: is missing/,
  ],
  ['no client certificate', 'type: kmip\nhost: h\nkeyName: k', /credentials: is missing/],
  [
    'credentials for Kubernetes',
    AWS.replace(/type: gcp[\s\S]*/, 'type: kubernetes\n  credentials: {}'),
    /unknown key/,
  ],
] as const) {
  test(`${what} is refused`, () => {
    const said = refusal(yaml);
    assert.match(said, pattern);
    assert.doesNotMatch(said, /hunter22/);
  });
}

async function folderWith(t: TestContext, files: Record<string, string | Uint8Array>): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'asterism-credentials-'));
  t.after(() => rm(folder, { recursive: true }));
  for (const [name, text] of Object.entries(files)) await writeFile(join(folder, name), text);
  return folder;
}

test('credentials come from the environment and from files, relative to the workspace', async (t) => {
  const folder = await folderWith(t, { 'aws-key': 'wJalr+%/=\n' });
  const kms = read(AWS) as ExternalKmsConfig;
  assert.deepEqual(await readKmsCredentials(kms, folder, { KEY_ID: 'AKIA1234' }), {
    kms: { accessKeyID: 'AKIA1234', accessKey: 'wJalr+%/=' },
    storage: {},
  });
});

for (const [what, files, env, pattern] of [
  [
    'an unset variable',
    { 'aws-key': 'x' },
    {},
    /kms\.credentials\.accessKeyID: the environment variable KEY_ID/,
  ],
  ['a missing file', {}, { KEY_ID: 'AKIA1234' }, /aws-key cannot be read \(ENOENT\)/],
  ['an empty file', { 'aws-key': '' }, { KEY_ID: 'AKIA1234' }, /aws-key is empty/],
  ['a huge file', { 'aws-key': 'hunter22'.repeat(10_000) }, { KEY_ID: 'AKIA1234' }, /larger than/],
  ['bytes that are no text', { 'aws-key': Uint8Array.of(0xff, 0xfe) }, { KEY_ID: 'AKIA1234' }, /not UTF-8/],
  [
    'a value of a bad form',
    { 'aws-key': 'hunter22' },
    { KEY_ID: 'hunter 22' },
    /KEY_ID holds has not the form of: access key id/,
  ],
] as const) {
  test(`${what} is named, and no value is`, async (t) => {
    const folder = await folderWith(t, files);
    await assert.rejects(
      readKmsCredentials(read(AWS) as ExternalKmsConfig, folder, env),
      (error: AsterismError) => {
        assert.ok(error instanceof AsterismError);
        assert.match(error.message, pattern);
        assert.doesNotMatch(`${error.stack}`, /hunter/);
        return true;
      },
    );
  });
}

test('a FIFO in the place of a file does not hang', { timeout: 10_000 }, async (t) => {
  const folder = await folderWith(t, {});
  execFileSync('mkfifo', [join(folder, 'aws-key')]);
  const env = { KEY_ID: 'AKIA1234' };
  await assert.rejects(readKmsCredentials(read(AWS) as ExternalKmsConfig, folder, env), {
    code: 'ERR_CREDENTIALS',
  });
});
