import { zero } from '@asterism/bytes/bytes';
import { AsterismError } from '@asterism/errors/errors';
import { combine, split } from 'shamir-secret-sharing';
import { merkleTree } from './merkle.ts';
import { encodePayload, parsePayload, type SharedSecret } from './payload.ts';
import { isGenuine, MAX_SHARES, type Share, splitIdOf } from './share.ts';

/**
 * Splits a secret into shares of which any `threshold` give it back, and fewer say nothing of it.
 *
 * @param clusterId 32 bytes: the cluster that the secret is of
 * @param plan 2 <= threshold <= count <= 16
 * @throws AsterismError (ERR_SPLIT) for a plan or a secret that cannot be split
 */
export async function splitSecret(
  secret: SharedSecret,
  clusterId: Uint8Array,
  { count, threshold }: { count: number; threshold: number },
): Promise<Share[]> {
  const inRange = (n: number, from: number, to: number) => Number.isInteger(n) && n >= from && n <= to;
  if (!inRange(count, 2, MAX_SHARES) || !inRange(threshold, 2, count))
    throw new AsterismError(
      'ERR_SPLIT',
      `${threshold} of ${count} shares cannot be made: 2 of 2 to 16 of 16 can`,
    );
  if (clusterId.length !== 32)
    throw new AsterismError('ERR_SPLIT', `a cluster id has 32 bytes, not ${clusterId.length}`);
  const payload = encodePayload(secret);
  const bodies = await split(payload, count, threshold);
  zero(payload);
  const header = {
    clusterId: Uint8Array.from(clusterId),
    generation: secret.generation ?? 1,
    threshold,
    count,
  };
  const { root, paths } = merkleTree(bodies);
  const splitId = splitIdOf(header, root);
  return bodies.map((body, i) => ({ ...header, index: i + 1, splitId, path: paths[i]!, body }));
}

/**
 * The secret that shares give: those of one split, each once, at least as many as are needed.
 * `ShareCollection` finds them among others and says what is wrong with the rest.
 * @throws AsterismError (ERR_SHARES) where they do not fit together; ParseError (ERR_SHARES_PAYLOAD)
 */
export async function combineShares(shares: readonly Share[]): Promise<SharedSecret> {
  const [first] = shares;
  const id = (share: Share) => share.splitId.join();
  if (
    first === undefined ||
    shares.length < first.threshold ||
    new Set(shares.map(({ index }) => index)).size !== shares.length ||
    !shares.every((share) => id(share) === id(first) && isGenuine(share))
  )
    throw new AsterismError('ERR_SHARES', 'these are not enough genuine shares of one split');
  // Exactly as many as are needed: the library cannot know the threshold, and more give the same.
  const payload = await combine(shares.slice(0, first.threshold).map(({ body }) => body));
  try {
    return parsePayload(payload, first.generation);
  } finally {
    zero(payload);
  }
}
