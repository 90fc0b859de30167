/**
 * A node becomes a member once, by init or by join, whichever comes first. Taking the lock is synchronous, so two
 * that race cannot both have it. It is given back only by one that has not yet touched PCR 15; after a restart
 * of the process PCR 15 and the journals say who had it.
 */
export class NodeLock {
  #holder: 'init' | 'join' | undefined;
  readonly #taken: ((by: 'init' | 'join') => void)[] = [];

  get holder(): 'init' | 'join' | undefined {
    return this.#holder;
  }

  tryTake(by: 'init' | 'join'): boolean {
    if (this.#holder !== undefined && this.#holder !== by) return false;
    this.#holder = by;
    for (const listener of this.#taken) listener(by);
    return true;
  }

  release(by: 'init' | 'join'): void {
    if (this.#holder === by) this.#holder = undefined;
  }

  /** The other side stops its work when one has the lock. */
  onTaken(listener: (by: 'init' | 'join') => void): void {
    this.#taken.push(listener);
  }
}
