import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { after, afterEach, before, describe, test } from 'node:test';
import { inspect } from 'node:util';
import { type Authority, startAuthority } from '@asterism/testkit/counterparts/key-vault/authority';
import { temporaryFolder } from '@asterism/testkit/temporary-folder';
import { type TestCa, testCa } from '@asterism/testkit/test-ca';
import { azureIdentity } from './azure-identity.ts';
import type { Settings } from './settings.ts';

const VAULT = { host: 'asterism-test.vault.azure.net', scope: 'https://vault.azure.net/.default' };
const AUDIENCE = 'https://vault.azure.net';

describe('Azure credentials that the settings do not hold', () => {
  let ca: TestCa;
  let authority: Authority;
  const kept = { ...process.env };

  /** What DefaultAzureCredential looks at is this alone. */
  const environment = (values: Record<string, string>) => {
    for (const name of Object.keys(process.env))
      if (/^(AZURE|IDENTITY|MSI|IMDS)_/.test(name)) delete process.env[name];
    Object.assign(process.env, { AZURE_AUTHORITY_HOST: authority.origin, ...values });
  };
  const tokenOf = async (
    parameters: Settings['parameters'] = {},
    credentials: Settings['credentials'] = {},
  ) => {
    const identity = await azureIdentity(
      'KMS',
      { parameters, credentials: { caCertificate: ca.pem, ...credentials } },
      VAULT,
    );
    try {
      return (await identity.credential.getToken(VAULT.scope))?.token ?? '';
    } finally {
      identity.close();
    }
  };

  before(async () => {
    ca = await testCa();
    authority = await startAuthority(ca);
  });
  afterEach(() => {
    environment({});
    delete process.env.AZURE_AUTHORITY_HOST;
    Object.assign(process.env, kept);
  });
  after(() => authority?.kill());

  test('environment: a service principal', async () => {
    environment({
      AZURE_TENANT_ID: authority.tenantId,
      AZURE_CLIENT_ID: authority.clientId,
      AZURE_CLIENT_SECRET: authority.clientSecret,
    });
    assert.equal(authority.problemOf(await tokenOf(), AUDIENCE), undefined);
  });

  test('workload identity: the token of the platform, from its file', async () => {
    await using folder = await temporaryFolder();
    const file = join(folder.path, 'token');
    await writeFile(file, authority.federatedToken);
    environment({
      AZURE_TENANT_ID: authority.tenantId,
      AZURE_CLIENT_ID: authority.clientId,
      AZURE_FEDERATED_TOKEN_FILE: file,
    });
    assert.equal(authority.problemOf(await tokenOf(), AUDIENCE), undefined);

    const foreign = randomBytes(24).toString('base64url');
    await writeFile(file, foreign);
    const error = await tokenOf().then(
      (): never => assert.fail(),
      (reason: Error & { code?: string }) => reason,
    );
    assert.equal(error.code, 'ERR_KMS_CREDENTIALS');
    assert.ok(!inspect(error, { depth: 9, showHidden: true }).includes(foreign));
  });

  test('managed identity: the client id of the settings is asked for, over HTTP on this machine', async () => {
    const asked: URL[] = [];
    const agent = createServer((request, response) => {
      asked.push(new URL(request.url ?? '/', 'http://localhost'));
      const good = request.headers['x-identity-header'] === 'known';
      response.writeHead(good ? 200 : 401, { 'content-type': 'application/json' });
      const expires = Math.floor(Date.now() / 1000) + 3600;
      response.end(
        JSON.stringify(
          good
            ? { access_token: authority.mint({}), expires_on: String(expires), token_type: 'Bearer' }
            : { error: 'unauthorized' },
        ),
      );
    });
    agent.listen(0, '127.0.0.1');
    await once(agent, 'listening');
    try {
      const endpoint = `http://127.0.0.1:${(agent.address() as AddressInfo).port}/token`;
      environment({ IDENTITY_ENDPOINT: endpoint, IDENTITY_HEADER: 'known' });
      const token = await tokenOf({ clientID: authority.clientId });
      assert.equal(authority.problemOf(token, AUDIENCE), undefined);
      assert.equal(asked.at(-1)?.searchParams.get('client_id'), authority.clientId);
      assert.equal(asked.at(-1)?.searchParams.get('resource'), AUDIENCE);
    } finally {
      agent.close();
      agent.closeAllConnections();
    }
  });

  test('an authority that is not https is a matter of settings', async () => {
    environment({ AZURE_AUTHORITY_HOST: 'http://login.example' });
    await assert.rejects(tokenOf(), { code: 'ERR_KMS_SETTINGS' });
    await assert.rejects(tokenOf({ authorityHost: 'http://login.example' }), { code: 'ERR_KMS_SETTINGS' });
  });

  test('an authority that the settings name is asked, whatever the environment says', async () => {
    environment({ AZURE_AUTHORITY_HOST: 'https://127.0.0.1:1' });
    const { tenantId: tenantID, clientId: clientID, clientSecret, origin: authorityHost } = authority;
    const parameters = { tenantID, clientID, authorityHost };
    assert.equal(authority.problemOf(await tokenOf(parameters, { clientSecret }), AUDIENCE), undefined);
  });

  test('what the machine has is not sent to an authority that the settings name, unless it is of Microsoft', async () => {
    const { tenantId, clientId, clientSecret, origin: authorityHost } = authority;
    environment({
      AZURE_TENANT_ID: tenantId,
      AZURE_CLIENT_ID: clientId,
      AZURE_CLIENT_SECRET: clientSecret,
    });
    const given = authority.scopes.length;
    await assert.rejects(tokenOf({ authorityHost }), { code: 'ERR_KMS_SETTINGS' });
    assert.equal(authority.scopes.length, given);
    const settings = {
      parameters: { authorityHost: 'https://login.microsoftonline.us/' },
      credentials: {},
    };
    (await azureIdentity('KMS', settings, VAULT)).close();
  });
});
