import { createHash } from 'node:crypto';

const HASH_BYTES = 16;
/** Where a tree has no leaf: no hash of 16 bytes is known to be that. */
const NO_LEAF = new Uint8Array(HASH_BYTES);

/** Hashes on the way from a leaf to the root of a tree of `count` leaves. */
export function pathLength(count: number): number {
  return Math.ceil(Math.log2(count));
}

/**
 * A Merkle tree over the bodies of all shares of a split. SHA-256 cut to 16 bytes: forging a body for a root that
 * others carry is a second preimage (2^128 tries). Leaves and nodes are hashed apart, as in RFC 6962 section 2.1.
 *
 * @param bodies that of share i + 1 at i
 * @returns the root, and for each body its path from the leaf up
 */
export function merkleTree(bodies: readonly Uint8Array[]): { root: Uint8Array; paths: Uint8Array[][] } {
  const depth = pathLength(bodies.length);
  const paths: Uint8Array[][] = bodies.map(() => []);
  let level = Array.from({ length: 1 << depth }, (_, i) =>
    bodies[i] === undefined ? NO_LEAF : leaf(bodies[i], i + 1),
  );
  for (let height = 0; height < depth; height++) {
    for (const [i, path] of paths.entries()) path.push(level[(i >> height) ^ 1]!);
    level = Array.from({ length: level.length / 2 }, (_, i) => node(level[2 * i]!, level[2 * i + 1]!));
  }
  return { root: level[0]!, paths };
}

/** The root (16 bytes) of the tree in which `body`, that of share `index` (from 1), has this path. */
export function rootOf(body: Uint8Array, index: number, path: readonly Uint8Array[]): Uint8Array {
  let hash = leaf(body, index);
  for (const [height, other] of path.entries())
    hash = ((index - 1) >> height) & 1 ? node(other, hash) : node(hash, other);
  return hash;
}

function leaf(body: Uint8Array, index: number): Uint8Array {
  return hashOf(Uint8Array.of(0, index), body);
}

function node(left: Uint8Array, right: Uint8Array): Uint8Array {
  return hashOf(Uint8Array.of(1), left, right);
}

function hashOf(...parts: readonly Uint8Array[]): Uint8Array {
  const hash = createHash('sha256');
  for (const part of parts) hash.update(part);
  return Uint8Array.from(hash.digest().subarray(0, HASH_BYTES));
}
