import { BoundedCache } from '@asterism/bytes/bounded-cache';
import { toHex } from '@asterism/bytes/encoding';
import { parseEventLog, replay, SHA256 } from '@asterism/eventlog/event-log';

const LOGS_KEPT = 64;

/** Replays event logs, and remembers the results: machines of one image send the same log each time. */
export class ReplayedLogs {
  readonly #seen = new BoundedCache<ReadonlyMap<number, Uint8Array>>(LOGS_KEPT);

  /**
   * SHA-256 PCRs that a log leads to.
   * @throws ParseError
   */
  async pcrsOf(log: Uint8Array): Promise<ReadonlyMap<number, Uint8Array>> {
    const id = toHex(new Uint8Array(await crypto.subtle.digest('SHA-256', new Uint8Array(log))));
    const seen = this.#seen.get(id);
    if (seen !== undefined) return seen;
    const pcrs = await replay(parseEventLog(log), SHA256);
    this.#seen.set(id, pcrs);
    return pcrs;
  }
}
