import { fromUtf8, toUtf8 } from '@asterism/bytes/encoding';
import { AsterismError } from '@asterism/errors/errors';
import { parseKmsUri, parseStoreUri, renderKmsUri, renderStoreUri } from './uri.ts';

export const name = 'kms/uri';

export const seeds = [
  'kms://aws?region=eu-central-1&keyName=alias%2Fkek&accessKeyID=AKIA1234&accessKey=a%2Bb/c',
  `kms://vault?address=https%3A%2F%2Fbao.internal%3A8200&keyName=kek&clusterID=${'0a'.repeat(32)}&generation=2`,
  'kms://kmip?host=kmip.internal&keyName=kek%21&v26Blobs=accept',
  `kms://cluster-kms?key=${'A'.repeat(43)}=&salt=${'A'.repeat(43)}%3D&generation=2&measurementSecret=${'A'.repeat(43)}=`,
  'storage://gcp?projectID=project-1&bucket=keys&prefix=a%2Fb',
  'storage://no-store',
].map(toUtf8);

/** What is read is printed, and read again, as the same. */
export function run(input: Uint8Array): void {
  const text = fromUtf8(input);
  for (const [parse, render] of [
    [parseKmsUri, renderKmsUri],
    [parseStoreUri, renderStoreUri],
  ] as const) {
    let printed: string;
    try {
      printed = (render as (reference: unknown) => string)(parse(text));
    } catch (error) {
      if (error instanceof AsterismError) continue;
      throw error;
    }
    if ((render as (reference: unknown) => string)(parse(printed)) !== printed)
      throw new Error('changed on its way');
  }
}
