import { toHex } from '@asterism/bytes/encoding';
import { encodeShare, isGenuine, parseShare } from './share.ts';
import { splitSecret } from './split.ts';

export const name = 'shares/binary';

const shares = await splitSecret(
  { key: new Uint8Array(32).fill(7), salt: new Uint8Array(32).fill(9) },
  new Uint8Array(32).fill(1),
  { count: 5, threshold: 3 },
);

export const seeds = shares.map(encodeShare);

const genuine = new Set(seeds.map(toHex));

/** What is accepted is written as it was read, and only what was split off is genuine. */
export function run(input: Uint8Array): void {
  const share = parseShare(input);
  if (toHex(encodeShare(share)) !== toHex(input)) throw new Error('changed on its way');
  if (isGenuine(share) && !genuine.has(toHex(input))) throw new Error('a forged share is genuine');
}
