import { equal } from '@asterism/bytes/bytes';
import { toUtf8 } from '@asterism/bytes/encoding';
import { parseKeyToken, renderKeyToken } from './key-token.ts';

export const name = 'disk/key-token';

const envelope = toUtf8('{"version":1}');
export const seeds = [
  renderKeyToken({ keys: [{ name: '1.0' }] }),
  renderKeyToken({
    keys: [
      { name: '1.0', envelope },
      { name: '1.1', envelope },
    ],
    measurementSecret: envelope,
  }),
  toUtf8('{"type":"asterism-disk-key","keyslots":[],"keys":[{"name":"1.0","name":"1.1"}]}'),
];

/** What is read is printed as the same bytes. */
export function run(input: Uint8Array): void {
  if (!equal(renderKeyToken(parseKeyToken(input)), input)) throw new Error('changed on its way');
}
