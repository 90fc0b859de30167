/** Whoever takes a place: a connection, say. */
export interface Holder {
  readonly address: string;
}

export interface PlacesOptions<T extends Holder> {
  readonly max: number;
  readonly maxPerAddress: number;
  /** Who goes first when somebody must: the lower, the sooner; undefined stays. */
  rank(holder: T): number | undefined;
  /** Ends a holder whose place is needed. It has been taken out already. */
  evict(holder: T): void;
}

/**
 * A bounded number of places, shared so that no address can keep the others out: a newcomer that finds no room takes
 * the place of the oldest holder of the address that holds the most. It only takes a place of its own address where
 * that holds its full share, or where no other holds more. Addresses may stand for many (a load balancer does), so
 * holders of one address are no reason to turn the next away either.
 */
export class Places<T extends Holder> {
  readonly #options: PlacesOptions<T>;
  /** By address; both in order of arrival. */
  readonly #holders = new Map<string, Set<T>>();
  #size = 0;

  constructor(options: PlacesOptions<T>) {
    this.#options = options;
  }

  get size(): number {
    return this.#size;
  }

  has(holder: T): boolean {
    return this.#holders.get(holder.address)?.has(holder) === true;
  }

  *[Symbol.iterator](): Generator<T> {
    for (const own of [...this.#holders.values()]) yield* [...own];
  }

  /** @returns whether there is room, or somebody was evicted to make it */
  add(holder: T): boolean {
    const { address } = holder;
    const { max, maxPerAddress } = this.#options;
    const own = this.#holders.get(address);
    const held = own?.size ?? 0;
    if (held >= maxPerAddress || this.#size >= max) {
      const victim = held >= maxPerAddress ? this.#first(own) : (this.#elsewhere(held) ?? this.#first(own));
      if (victim === undefined) return false;
      this.delete(victim);
      this.#options.evict(victim);
    }
    const place = this.#holders.get(address) ?? new Set();
    this.#holders.set(address, place.add(holder));
    this.#size++;
    return true;
  }

  /** @returns whether it held a place */
  delete(holder: T): boolean {
    const own = this.#holders.get(holder.address);
    if (own?.delete(holder) !== true) return false;
    if (own.size === 0) this.#holders.delete(holder.address);
    this.#size--;
    return true;
  }

  /** Of the fullest address that holds more than `held` and has somebody who may go. */
  #elsewhere(held: number): T | undefined {
    const fuller = [...this.#holders.values()].filter(({ size }) => size > held);
    for (const holders of fuller.sort((a, b) => b.size - a.size)) {
      const first = this.#first(holders);
      if (first !== undefined) return first;
    }
    return undefined;
  }

  /** The oldest of the lowest rank. */
  #first(holders: Iterable<T> = []): T | undefined {
    let best: { readonly holder: T; readonly rank: number } | undefined;
    for (const holder of holders) {
      const rank = this.#options.rank(holder);
      if (rank !== undefined && (best === undefined || rank < best.rank)) best = { holder, rank };
    }
    return best?.holder;
  }
}
