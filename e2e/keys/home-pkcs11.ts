import { startHsm } from '@asterism/testkit/counterparts/hsm';
import type { FoundHome, Place, TestHome } from './home.ts';

/** SoftHSM2 behind p11-kit with two keys. */
export async function pkcs11Home(): Promise<FoundHome> {
  return { start: startPkcs11Home };
}

async function startPkcs11Home(place: Place): Promise<TestHome> {
  const hsm = await startHsm(place.host);
  for (const key of [1, 2]) await hsm.makeKey(`asterism-${key}`, `0${key}`);
  const credentials = {
    clientCertificate: await place.file('hsm-client.pem', hsm.client.certificate),
    clientKey: await place.secret('hsm-client.key', hsm.client.key),
    caCertificate: await place.file('hsm-ca.pem', hsm.ca.pem),
    pin: await place.secret('hsm-pin', hsm.pin),
  };
  return {
    kms: (key) => ({
      type: 'pkcs11',
      host: place.host,
      port: String(hsm.port),
      tokenLabel: hsm.tokenLabel,
      keyName: `asterism-${key}`,
      credentials,
    }),
    giveUp: async (key) => {
      await hsm.tool('--delete-object', '--type=secrkey', `--label=asterism-${key}`);
    },
    stop: () => hsm.stop(),
    start: () => hsm.start(),
    [Symbol.asyncDispose]: () => hsm[Symbol.asyncDispose](),
  };
}
