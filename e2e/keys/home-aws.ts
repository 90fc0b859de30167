import { motoPython, startMoto } from '@asterism/testkit/counterparts/moto';
import { disposeAll, type FoundHome, type Place, type TestHome } from './home.ts';

const KMS_ACTIONS = ['kms:Encrypt', 'kms:Decrypt', 'kms:DescribeKey'];
const S3_ACTIONS = ['s3:GetObject', 's3:PutObject', 's3:DeleteObject', 's3:ListBucket'];

/** AWS KMS with two keys, and S3: two servers, since what moto has is gone when it ends. */
export async function awsHome(): Promise<FoundHome> {
  const found = await motoPython();
  if ('skip' in found) return found;
  return { start: (place) => startAwsHome(found.program, place) };
}

async function startAwsHome(program: string, place: Place): Promise<TestHome> {
  const { host } = place;
  const kms = await startMoto(program, { tls: true, host });
  const s3 = await startMoto(program, { tls: true, host });
  const keys = [await kms.createKey(), await kms.createKey()];
  await s3.createBucket('deks');
  const userOf = async (moto: typeof kms, name: string, Action: readonly string[]) => {
    const statement = { Effect: 'Allow', Action, Resource: '*' };
    const policy = JSON.stringify({ Version: '2012-10-17', Statement: [statement] });
    const { accessKeyID, accessKey } = await moto.createUser(policy);
    await moto.judgeCallers(true);
    return {
      accessKeyID: await place.file(`${name}-id`, accessKeyID),
      accessKey: await place.secret(`${name}-key`, accessKey),
      caCertificate: await place.file(`${name}-ca.pem`, moto.ca),
    };
  };
  const kmsCredentials = await userOf(kms, 'aws-kms', KMS_ACTIONS);
  const s3Credentials = await userOf(s3, 'aws-s3', S3_ACTIONS);
  const { region } = kms;
  return {
    kms: (key) => ({
      type: 'aws',
      region,
      keyName: keys[key - 1],
      endpoint: kms.endpoint,
      credentials: kmsCredentials,
    }),
    store: {
      type: 'aws',
      region,
      bucket: 'deks',
      prefix: 'mini/',
      endpoint: s3.endpoint,
      credentials: s3Credentials,
    },
    // It goes on using keys that are disabled. To give up both, end the KMS.
    giveUp: async () => void (await kms[Symbol.asyncDispose]()),
    stop: async () => kms.suspend(),
    start: async () => kms.resume(),
    stopStore: async () => s3.suspend(),
    startStore: async () => s3.resume(),
    [Symbol.asyncDispose]: () => disposeAll([kms, s3]),
  };
}
