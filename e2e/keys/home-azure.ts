import { azuriteProgram, startAzurite } from '@asterism/testkit/counterparts/azurite';
import { startKeyVault } from '@asterism/testkit/counterparts/key-vault';
import { startAuthority } from '@asterism/testkit/counterparts/key-vault/authority';
import { testCa } from '@asterism/testkit/test-ca';
import type { FoundHome, Place, TestHome } from './home.ts';

/** Key Vault with two keys, Blob Storage, and the authority that both trust. */
export async function azureHome(): Promise<FoundHome> {
  const found = await azuriteProgram();
  if ('skip' in found) return found;
  return { start: (place) => startAzureHome(found.program, place) };
}

async function startAzureHome(program: string, place: Place): Promise<TestHome> {
  const { host } = place;
  const ca = await testCa();
  const authority = await startAuthority(ca, host);
  const vault = await startKeyVault(ca, authority, { host });
  const azurite = await startAzurite(program, ca, host);
  await azurite.createContainer('deks');
  const keys = [1, 2].map((key) => vault.addKey(`asterism-${key}`));
  const identity = {
    tenantID: authority.tenantId,
    clientID: authority.clientId,
    authorityHost: authority.origin,
  };
  const credentials = {
    clientSecret: await place.secret('azure-client-secret', authority.clientSecret),
    caCertificate: await place.file('azure-ca.pem', ca.pem),
  };
  return {
    kms: (key) => ({
      type: 'azure',
      vaultName: 'asterism-test',
      vaultType: 'vault.azure.net',
      keyName: `asterism-${key}`,
      ...identity,
      endpoint: vault.origin,
      credentials,
    }),
    store: {
      type: 'azure',
      account: azurite.account,
      container: 'deks',
      prefix: 'mini/',
      ...identity,
      endpoint: azurite.endpoint,
      credentials,
    },
    giveUp: async (key) => {
      keys[key - 1]!.enabled = false;
    },
    stop: () => vault.kill(),
    start: () => vault.start(),
    stopStore: () => azurite.kill(),
    startStore: () => azurite.start(),
    async [Symbol.asyncDispose]() {
      await azurite[Symbol.asyncDispose]();
      await vault.kill();
      await authority.kill();
    },
  };
}
