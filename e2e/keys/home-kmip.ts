import { kmipSkip, startKmip } from '@asterism/testkit/counterparts/kmip';
import type { FoundHome, Place, TestHome } from './home.ts';

/** PyKMIP with two keys. */
export async function kmipHome(): Promise<FoundHome> {
  const skip = kmipSkip();
  return skip === false ? { start: startKmipHome } : { skip };
}

async function startKmipHome(place: Place): Promise<TestHome> {
  const server = await startKmip(place.host);
  const keys = [await server.createKek('asterism-1'), await server.createKek('asterism-2')];
  const credentials = {
    clientCertificate: await place.file('kmip-client.crt', server.client.certificate),
    clientKey: await place.secret('kmip-client.key', server.client.key),
    caCertificate: await place.file('kmip-ca.crt', server.ca.pem),
  };
  return {
    kms: (key) => ({
      type: 'kmip',
      host: server.host,
      port: String(server.port),
      keyName: `asterism-${key}`,
      credentials,
    }),
    giveUp: async (key) => {
      const id = keys[key - 1]!;
      await server.revoke(id, 'CESSATION_OF_OPERATION');
      await server.destroy(id);
    },
    stop: () => server.kill(),
    start: () => server.start(),
    [Symbol.asyncDispose]: () => server[Symbol.asyncDispose](),
  };
}
