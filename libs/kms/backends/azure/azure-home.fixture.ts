import { type KeyVault, startKeyVault } from '@asterism/testkit/counterparts/key-vault';
import { type Authority, startAuthority } from '@asterism/testkit/counterparts/key-vault/authority';
import { type TestCa, testCa } from '@asterism/testkit/test-ca';
import type { Kek } from '../../kek.ts';
import type { Settings } from '../../settings.ts';
import { open } from './backend.ts';

type Change = Readonly<Record<string, string | undefined>>;

/** An authority and a vault on loopback with the RSA key `kek`, and the settings that open it. */
export interface AzureHome extends AsyncDisposable {
  readonly ca: TestCa;
  readonly authority: Authority;
  readonly vault: KeyVault;
  /** Of the key `kek`, open all the time. */
  readonly kek: Kek;
  settings(change?: Change): Settings;
  /** Until {@link reset}. */
  open(change?: Change): Promise<Kek>;
  /** Between two tests: both servers behave again. */
  reset(): Promise<void>;
}

export async function azureHome(): Promise<AzureHome> {
  const ca = await testCa();
  const authority = await startAuthority(ca);
  const vault = await startKeyVault(ca, authority);
  // The SDK reads it whenever a credential is made; its certificate is judged by caCertificate.
  process.env.AZURE_AUTHORITY_HOST = authority.origin;
  vault.addKey('kek');
  const settings = (change: Change = {}): Settings => {
    const { clientSecret = authority.clientSecret, caCertificate = ca.pem, ...parameters } = change;
    return {
      parameters: {
        vaultName: 'asterism-test',
        vaultType: 'vault.azure.net',
        keyName: 'kek',
        tenantID: authority.tenantId,
        clientID: authority.clientId,
        endpoint: vault.origin,
        ...parameters,
      },
      credentials: { clientSecret, caCertificate },
    };
  };
  const kek = await open(settings());
  const opened: Kek[] = [];
  const reset = async () => {
    vault.instead = undefined;
    authority.instead = undefined;
    authority.tokenSeconds = 3600;
    authority.secretExpired = false;
    for (const one of opened.splice(0)) await one.close();
  };
  return {
    ca,
    authority,
    vault,
    kek,
    settings,
    async open(change) {
      const one = await open(settings(change));
      opened.push(one);
      return one;
    },
    reset,
    async [Symbol.asyncDispose]() {
      await reset();
      await kek.close();
      delete process.env.AZURE_AUTHORITY_HOST;
      await vault.kill();
      await authority.kill();
    },
  };
}
