import { gcpKmsProgram, startGcpKms } from '@asterism/testkit/counterparts/gcp-kms';
import { gcsProgram, startGcs } from '@asterism/testkit/counterparts/gcs';
import { disposeAll, type FoundHome, type Place, type TestHome } from './home.ts';

/** Cloud KMS with two keys, and Cloud Storage. */
export async function gcpHome(): Promise<FoundHome> {
  const [kms, gcs] = [await gcpKmsProgram(), await gcsProgram()];
  if ('skip' in kms) return kms;
  if ('skip' in gcs) return gcs;
  return { start: (place) => startGcpHome(kms.program, gcs.program, place) };
}

async function startGcpHome(kmsProgram: string, gcsProgram: string, place: Place): Promise<TestHome> {
  const kms = await startGcpKms(kmsProgram, { host: place.host });
  const gcs = await startGcs(gcsProgram, { host: place.host, keep: true });
  for (const key of [1, 2]) await kms.createKey(`asterism-${key}`);
  await gcs.createBucket('deks');
  const kmsCredentials = {
    serviceAccountKey: await place.secret('gcp-kms.json', kms.front.serviceAccountKey()),
    caCertificate: await place.file('gcp-kms-ca.pem', kms.front.ca),
  };
  const storeCredentials = {
    serviceAccountKey: await place.secret('gcs.json', gcs.front.serviceAccountKey()),
    caCertificate: await place.file('gcs-ca.pem', gcs.front.ca),
  };
  return {
    kms: (key) => ({ type: 'gcp', ...kms.parameters(`asterism-${key}`), credentials: kmsCredentials }),
    store: {
      type: 'gcp',
      projectID: 'project',
      bucket: 'deks',
      prefix: 'mini/',
      endpoint: gcs.front.address,
      credentials: storeCredentials,
    },
    giveUp: (key) => kms.destroy(`asterism-${key}`, 1),
    // The front stays and has nobody to ask: connections are made and break.
    stop: () => kms.kill(),
    start: () => kms.start(),
    stopStore: () => gcs.kill(),
    startStore: () => gcs.start(),
    [Symbol.asyncDispose]: () => disposeAll([kms, gcs]),
  };
}
