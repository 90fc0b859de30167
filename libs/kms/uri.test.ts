import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { KMS_HOMES, type KmsName, STORE_HOMES, type StoreName } from './catalogue.ts';
import type { Home, Value } from './settings.ts';
import {
  type ExternalReference,
  parseKmsUri,
  parseStoreUri,
  renderKmsUri,
  renderStoreUri,
  type StoreReference,
} from './uri.ts';

const CLUSTER_ID = '0123456789abcdef'.repeat(4);
const AWS = 'kms://aws?region=eu-central-1&keyName=alias%2Fkek';

/** Values that the catalogue allows, with the characters that a URI gives a meaning. */
function valuesOf(rows: Readonly<Record<string, Value>>): fc.Arbitrary<Record<string, string>> {
  const texts: Record<string, fc.Arbitrary<string>> = {};
  const needed: string[] = [];
  for (const [name, { pattern, required }] of Object.entries(rows)) {
    texts[name] = fc.stringMatching(pattern, { size: 'small' }).filter((text) => text.length < 300);
    if (required) needed.push(name);
  }
  return fc.record(texts, { requiredKeys: needed, noNullPrototype: true }) as fc.Arbitrary<
    Record<string, string>
  >;
}

const homes = <N extends string>(from: Readonly<Record<N, Home>>) => Object.entries(from) as [N, Home][];

for (const [name, home] of homes<KmsName>(KMS_HOMES)) {
  test(`kms://${name}: what is printed is read again`, () => {
    const reference: fc.Arbitrary<ExternalReference> = fc.record(
      {
        kind: fc.constant('external' as const),
        name: fc.constant(name),
        parameters: valuesOf(home.parameters),
        clusterId: fc.stringMatching(/^[0-9a-f]{64}$/),
        generation: fc.integer({ min: 1, max: 999_999_999 }),
        acceptV26Blobs: fc.boolean(),
        credentials: fc.constant({}),
      },
      {
        requiredKeys: ['kind', 'name', 'parameters', 'generation', 'acceptV26Blobs', 'credentials'],
        noNullPrototype: true,
      },
    ) as fc.Arbitrary<ExternalReference>;
    fc.assert(
      fc.property(reference, (given) => {
        const printed = renderKmsUri(given);
        assert.match(printed, /^kms:\/\/[\w.~%?&=-]+$/);
        assert.deepEqual(parseKmsUri(printed), given);
      }),
      { numRuns: 200 },
    );
  });
}

for (const [name, home] of homes<StoreName>(STORE_HOMES)) {
  test(`storage://${name}: what is printed is read again`, () => {
    fc.assert(
      fc.property(valuesOf(home.parameters), (parameters) => {
        const given: StoreReference = { name, parameters, credentials: {} };
        const printed = renderStoreUri(given);
        assert.match(printed, /^storage:\/\/[\w.~%?&=-]+$/);
        assert.deepEqual(parseStoreUri(printed), given);
      }),
      { numRuns: 200 },
    );
  });
}

test('every credential that is encoded is read as it was, whatever characters it has, and never printed', () => {
  const secret = fc.string({
    unit: fc.constantFrom(...'+%&=#?/ "\'<>!*()~.-_aZ09;:@,$'),
    minLength: 8,
    maxLength: 40,
  });
  fc.assert(
    fc.property(secret, (accessKey) => {
      const read = parseKmsUri(`${AWS}&accessKeyID=AKIA1234&accessKey=${encodeURIComponent(accessKey)}`);
      assert.equal(read.kind === 'external' && read.credentials.accessKey, accessKey);
      const printed = renderKmsUri(read);
      assert.ok(!printed.includes('accessKey') && !printed.includes('AKIA1234'));
      assert.ok(!printed.includes(encodeURIComponent(accessKey)));
    }),
  );
});

test('the spellings of v2.6', () => {
  assert.deepEqual(
    parseKmsUri(
      'kms://aws?region=eu-central-1&accessKeyID=AKIA1234&accessKey=abc%2Fd%2Be%3D&keyName=1234abcd',
    ),
    {
      kind: 'external',
      name: 'aws',
      parameters: { region: 'eu-central-1', keyName: '1234abcd' },
      credentials: { accessKeyID: 'AKIA1234', accessKey: 'abc/d+e=' },
      generation: 1,
      acceptV26Blobs: false,
    },
  );
  const [tenant, client] = ['11111111-2222-3333-4444-555555555555', '66666666-7777-8888-9999-000000000000'];
  const identity = { tenantID: tenant, clientID: client };
  const azure = parseKmsUri(
    `kms://azure?tenantID=${tenant}&clientID=${client}&clientSecret=s~_.&vaultName=vault&vaultType=vault.azure.net&keyName=kek`,
  );
  assert.ok(azure.kind === 'external');
  assert.deepEqual(azure.credentials, { clientSecret: 's~_.' });
  assert.deepEqual(azure.parameters, {
    ...identity,
    vaultName: 'vault',
    vaultType: 'vault.azure.net',
    keyName: 'kek',
  });
  assert.deepEqual(
    parseStoreUri(
      `storage://azure?account=acc&container=keys&tenantID=${tenant}&clientID=${client}&clientSecret=x`,
    ),
    {
      name: 'azure',
      parameters: { account: 'acc', container: 'keys', ...identity },
      credentials: { clientSecret: 'x' },
    },
  );
  assert.deepEqual(
    parseStoreUri('storage://gcp?projectID=project-1&bucket=keys&credentialsPath=%2Fvar%2Fkey.json'),
    {
      name: 'gcp',
      parameters: { projectID: 'project-1', bucket: 'keys', credentialsPath: '/var/key.json' },
      credentials: {},
    },
  );
  assert.equal(parseStoreUri('storage://no-store'), 'none');
  assert.equal(renderStoreUri('none'), 'storage://no-store');
});

// v2.6 printed the credentials of AWS KMS as they are, without encoding.
test('a secret that was not encoded is read as it is, or not at all: never as another', () => {
  const read = (accessKey: string) => {
    const { credentials } = parseKmsUri(
      `${AWS}&accessKeyID=AKIA1234&accessKey=${accessKey}`,
    ) as ExternalReference;
    return credentials.accessKey;
  };
  for (const secret of ['a+b/c=d', 'a++b', '/+=', 'a=b=c']) assert.equal(read(secret), secret);
  for (const secret of [
    'a%b',
    '100%',
    'a%4',
    'a%41b',
    'a%7Eb',
    '%2D',
    'a%ff',
    'a%c3%28',
    'a&b',
    'a b',
    'a#b',
    'a\nb',
  ])
    assert.throws(
      () => read(secret),
      (error: Error & { code?: string }) => error.code === 'ERR_KMS_URI' && !error.message.includes(secret),
      secret,
    );
});

for (const [what, uri, why] of [
  ['a parameter of unknown name', `${AWS}&regio=x`, /does not know regio$/],
  ['what may be a rest of a secret', `${AWS}&Zm9v0123=QUFB`, /does not know a parameter of unknown name$/],
  ['a parameter of objects', `${AWS}&constructor=x`, /does not know constructor$/],
  ['a parameter that is given twice', `${AWS}&region=eu-central-1`, /region twice/],
  ['one that is missing', 'kms://aws?region=eu-central-1', /keyName is missing/],
  ['an empty one', 'kms://aws?region=eu-central-1&keyName=', /without a value/],
  ['one that is not what it should be', 'kms://aws?region=QUFB&keyName=x', /region is not what it should be/],
  ['a cluster id that is short', `${AWS}&clusterID=abcd`, /clusterID has not 64/],
  ['generation 0', `${AWS}&generation=0`, /generation/],
  ['a generation that is no number', `${AWS}&generation=1e3`, /generation/],
  ['another answer to v26Blobs', `${AWS}&v26Blobs=yes`, /v26Blobs/],
  ['a path', 'kms://aws/QUFB?region=eu-central-1', /no such KMS/],
  ['an unknown KMS', 'kms://QUFB?region=eu-central-1', /no such KMS/],
  ['an inherited name', 'kms://constructor?region=eu-central-1', /no such KMS/],
  ['credentials before the name', 'kms://QUFB@aws?region=eu-central-1', /no such KMS/],
  ['more than 16 KiB', `${AWS}&accessKey=${'A'.repeat(16_384)}`, /longer than/],
  ['a number of parameters beyond sense', `${AWS}${'&a=b'.repeat(40)}`, /more than 32/],
] as const) {
  test(`refused: ${what}; no value is quoted`, () => {
    assert.throws(
      () => parseKmsUri(uri),
      (error: Error & { code?: string }) => {
        assert.match(error.message, why);
        assert.match(String(error.code), /^ERR_KMS_(URI|UNSUPPORTED)$/);
        assert.doesNotMatch(error.message, /QUFB|AAAA|abcd|1e3/);
        return true;
      },
    );
  });
}

test('stores: refused', () => {
  for (const [uri, code] of [
    ['storage://aws', 'ERR_KMS_URI'],
    ['storage://aws?bucket=keys&region=eu-central-1&clusterID=00', 'ERR_KMS_URI'],
    ['storage://kubernetes?x=y', 'ERR_KMS_URI'],
    ['storage://no-store?x=y', 'ERR_KMS_UNSUPPORTED'],
    ['storage://ftp', 'ERR_KMS_UNSUPPORTED'],
    ['kms://aws?bucket=keys&region=eu-central-1', 'ERR_KMS_UNSUPPORTED'],
    ['', 'ERR_KMS_UNSUPPORTED'],
  ] as const)
    assert.throws(() => parseStoreUri(uri), { code }, uri);
});

test('the cluster KMS, before and after a rotation', () => {
  const bytes = (value: number) => new Uint8Array(32).fill(value);
  const first = { kind: 'cluster', generation: 1, key: bytes(1), salt: bytes(2) } as const;
  const second = { ...first, generation: 2, measurementSecret: bytes(3) };
  assert.doesNotMatch(renderKmsUri(first), /generation|measurementSecret/);
  assert.deepEqual(parseKmsUri(renderKmsUri(first)), first);
  assert.deepEqual(parseKmsUri(renderKmsUri(second)), second);
  for (const change of ['&generation=0', '&generation=x', '&measurementSecret=AAAA', '&clusterID=aa'])
    assert.throws(() => parseKmsUri(renderKmsUri(first) + change), { code: 'ERR_KMS_URI' }, change);
});

test('a cluster id in capitals is the same', () => {
  const read = parseKmsUri(`${AWS}&clusterID=${CLUSTER_ID.toUpperCase()}`);
  assert.equal(read.kind === 'external' && read.clusterId, CLUSTER_ID);
});
