import { fromUtf8, toUtf8 } from '@asterism/bytes/encoding';
import { parseHomeCredentials, parseKeyConfiguration, renderKeyConfiguration } from './key-configuration.ts';

export const name = 'kms/key-configuration';

const credentials = { kms: { accessKey: 'x' }, storage: {} };
const home = { kmsUri: 'kms://aws?region=x', storageUri: 'storage://kubernetes' };
export const seeds = [
  toUtf8(renderKeyConfiguration({ homes: [home, { ...home, credentials }] })),
  toUtf8(JSON.stringify(credentials)),
];

/** What is read is printed, and read again, as the same. */
export function run(input: Uint8Array): void {
  const text = fromUtf8(input);
  if (text.startsWith('{"kms"')) {
    parseHomeCredentials(text);
    return;
  }
  const printed = renderKeyConfiguration(parseKeyConfiguration(text));
  if (renderKeyConfiguration(parseKeyConfiguration(printed)) !== printed)
    throw new Error('changed on its way');
}
