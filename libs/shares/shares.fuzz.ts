import { fromUtf8, toUtf8 } from '@asterism/bytes/encoding';
import { splitSecret } from './split.ts';
import { parseShareText, renderShare, shareCode } from './text.ts';

export const name = 'shares/text';

const [share] = await splitSecret(
  { key: new Uint8Array(32).fill(7), salt: new Uint8Array(32).fill(9) },
  new Uint8Array(32).fill(1),
  { count: 3, threshold: 2 },
);

export const seeds = [toUtf8(renderShare(share!, 'demo')), toUtf8(shareCode(share!))];

/** What is read in one form is the same in the other. */
export function run(input: Uint8Array): void {
  const read = parseShareText(fromUtf8(input));
  const code = shareCode(read);
  if (shareCode(parseShareText(renderShare(read, undefined))) !== code) throw new Error('changed on its way');
}
