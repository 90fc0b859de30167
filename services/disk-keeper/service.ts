import { AsterismError, BusyError } from '@asterism/errors/errors';
import type { API } from '@asterism/rpc/gen/disk_pb';
import type { Handlers } from '@asterism/rpc/handlers';
import type { FairTurns } from '@asterism/runtime/fair-turns';
import type { RateLimiter } from '@asterism/runtime/rate-limiter';
import { type SyncParts, syncDisk } from './sync.ts';

/** One run: what the JoinService and cryptsetup take, several times over. */
const SYNC_MS = 120_000;

export interface DiskKeeperParts extends SyncParts {
  /** By caller. */
  readonly limiter: RateLimiter;
  readonly turns: FairTurns;
}

/**
 * disk.API. A call carries no order: whoever makes it, the node does what its cluster's JoinService says, so callers
 * need no identity. One run at a time.
 */
export function diskKeeper(parts: DiskKeeperParts): Handlers<typeof API> {
  const { limiter, turns, log } = parts;
  return {
    async syncDisk(_request, { peer: { address } }) {
      limiter.take(address);
      try {
        // Not the caller's signal: a change that has begun goes on when he hangs up.
        return await turns.take(address, () => syncDisk(parts, AbortSignal.timeout(SYNC_MS)));
      } catch (err) {
        if (!(err instanceof BusyError))
          log.info({ err, address, code: err instanceof AsterismError ? err.code : undefined }, 'no sync');
        throw err;
      }
    },
  };
}
