import { fromUtf8, toUtf8 } from '@asterism/bytes/encoding';
import { parseClusterKmsUri, renderClusterKmsUri } from './cluster-uri.ts';

export const name = 'kms/cluster-uri';

export const seeds = [
  toUtf8(renderClusterKmsUri({ key: new Uint8Array(32).fill(0xfb), salt: new Uint8Array(32) })),
  toUtf8(
    'kms://cluster-kms?key=AAECAwQFBgcICQoLDA0ODw%3D%3D&salt=ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=',
  ),
];

/** What is read is printed, and read again, as the same. */
export function run(input: Uint8Array): void {
  const read = parseClusterKmsUri(fromUtf8(input));
  const printed = renderClusterKmsUri(read);
  if (renderClusterKmsUri(parseClusterKmsUri(printed)) !== printed) throw new Error('changed on its way');
}
