import { equal } from '@asterism/bytes/bytes';
import { toHex } from '@asterism/bytes/encoding';
import { AsterismError, ParseError } from '@asterism/errors/errors';
import { isGenuine, type Share } from './share.ts';
import { parseShareText } from './text.ts';

/** One share or several cannot be used; the message names each and says why. */
export class SharesError extends AsterismError {}

interface Entry {
  /** File or number of the entry, for messages. */
  readonly name: string;
  readonly share: Share;
}

/** A share that was not taken. */
export interface Refusal {
  readonly name: string;
  readonly why: string;
}

/** Takes shares one by one, keeps those that fit together, and says of every other one why it does not. */
export class ShareCollection {
  readonly #clusterId: Uint8Array | undefined;
  readonly #entries: Entry[] = [];
  readonly #refused: Refusal[] = [];

  /** @param clusterId 32 bytes: shares of any other cluster are foreign. Without it all must be of one cluster. */
  constructor(clusterId?: Uint8Array) {
    this.#clusterId = clusterId;
  }

  /**
   * Looks at a share by itself; one that is refused is left out, and the others can still be enough.
   * @param name what to call it in messages
   * @returns why it is refused
   */
  add(name: string, text: string): string | undefined {
    const judged = this.#judge(text);
    if (typeof judged === 'string') {
      this.#refused.push({ name, why: judged });
      return judged;
    }
    this.#entries.push({ name, share: judged });
    return undefined;
  }

  /** Names a share that could not even be read, for {@link take} to tell of. */
  refuse(name: string, why: string): void {
    this.#refused.push({ name, why });
  }

  #judge(text: string): Share | string {
    let share: Share;
    try {
      share = parseShareText(text);
    } catch (error) {
      if (error instanceof ParseError) return error.message;
      throw error;
    }
    const label = `share ${share.index} of ${share.count}`;
    if (!isGenuine(share))
      return `${label} was altered on purpose: its checksum is right, its content is not`;
    if (this.#clusterId !== undefined && !equal(share.clusterId, this.#clusterId))
      return `is of another cluster, ${short(share.clusterId)}; shares of ${short(this.#clusterId)} are needed`;
    const same = this.#entries.find(
      (entry) => equal(entry.share.splitId, share.splitId) && entry.share.index === share.index,
    );
    return same === undefined ? share : `is the same share as ${same.name}: ${label}`;
  }

  /** Whether the shares of one split are enough. */
  get complete(): boolean {
    return this.#groups().some(isComplete);
  }

  /** What is there and what is missing, in words. */
  get progress(): string {
    const groups = this.#groups();
    if (groups.length === 0) return 'there is no usable share yet';
    return groups
      .map((group) => `${tally(group)}${groups.length === 1 ? '' : ` of ${describe(group)}`}`)
      .join('; ');
  }

  /**
   * As many shares as are needed, all of one split; what was refused by itself, and what is of another split.
   * @throws SharesError (ERR_SHARES) with a line for each share that is wrong or foreign
   */
  take(): { shares: Share[]; refused: Refusal[]; foreign: Refusal[] } {
    const groups = this.#groups().sort((a, b) => b.length - a.length);
    const complete = groups.filter(isComplete);
    const [group] = complete;
    if (group === undefined || complete.length > 1) {
      const why =
        complete.length > 1
          ? 'the shares are of several splits, and enough of more than one; give those of one'
          : `the shares are not enough: ${this.progress}`;
      throw new SharesError('ERR_SHARES', [why, ...this.#complaints(groups)].join('\n'));
    }
    const foreign = groups
      .filter((other) => other !== group)
      .flatMap((other) =>
        other.map((entry) => ({ name: entry.name, why: difference(entry.share, group[0]!.share) })),
      );
    const shares = group.slice(0, group[0]!.share.threshold).map(({ share }) => share);
    return { shares, refused: [...this.#refused], foreign };
  }

  #complaints(groups: readonly (readonly Entry[])[]): string[] {
    const lines = this.#refused.map(({ name, why }) => `${name}: ${why}`);
    if (groups.length < 2) return lines;
    const [first, second] = groups as [Entry[], Entry[]];
    // Where most agree, it is the others that do not belong; where none are most, each is told with what it is.
    const agreed = first.length > second.length ? first : undefined;
    for (const group of groups) {
      if (group === agreed) continue;
      for (const { name, share } of group)
        lines.push(`${name}: ${agreed ? difference(share, agreed[0]!.share) : `is of ${describe(group)}`}`);
    }
    return lines;
  }

  #groups(): Entry[][] {
    const groups = new Map<string, Entry[]>();
    for (const entry of this.#entries) {
      const id = toHex(entry.share.splitId);
      groups.set(id, [...(groups.get(id) ?? []), entry]);
    }
    return [...groups.values()];
  }
}

function isComplete(group: readonly Entry[]): boolean {
  return group.length >= group[0]!.share.threshold;
}

function tally(group: readonly Entry[]): string {
  return `${group.length} of ${group[0]!.share.threshold} needed`;
}

function describe(group: readonly Entry[]): string {
  const { splitId, clusterId, generation } = group[0]!.share;
  return `split ${short(splitId)} (cluster ${short(clusterId)}, generation ${generation})`;
}

function difference(share: Share, wanted: Share): string {
  if (!equal(share.clusterId, wanted.clusterId))
    return `is of another cluster, ${short(share.clusterId)}; the others are of ${short(wanted.clusterId)}`;
  if (share.generation !== wanted.generation)
    return `is of generation ${share.generation} of the master secret; the others are of generation ${wanted.generation}`;
  return `is of another split, ${short(share.splitId)}, than the others (${short(wanted.splitId)}): out of date, or forged`;
}

/** Ids of splits are hashes: the first bytes tell two apart. */
function short(id: Uint8Array): string {
  return toHex(id.subarray(0, 8));
}
