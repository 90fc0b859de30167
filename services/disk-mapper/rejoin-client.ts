import { setTimeout as sleep } from 'node:timers/promises';
import { zero } from '@asterism/bytes/bytes';
import { AsterismError } from '@asterism/errors/errors';
import type { Metadata } from '@asterism/metadata/types';
import { checkPeerCluster, type JoinPeers } from '@asterism/rpc/join-peers';
import type { Attempt, MemberAudit } from './audit.ts';
import type { Unlocker } from './unlock.ts';

export interface RejoinClientOptions {
  readonly diskUuid: string;
  readonly metadata: Metadata;
  readonly peers: JoinPeers;
  readonly unlocker: Unlocker;
  readonly audit: Pick<MemberAudit, 'refused'>;
  /** Milliseconds between two rounds. Default 10,000. */
  readonly intervalMs?: number;
  readonly log: { info(fields: object, message: string): void };
}

/** Asks the other control planes for the key of this node's own disk until one of them has it, or the signal aborts. */
export async function rejoin(options: RejoinClientOptions, signal: AbortSignal): Promise<void> {
  const { metadata, peers, unlocker, audit, diskUuid, log } = options;
  while (true) {
    try {
      const self = await metadata.self(signal);
      for (const address of await peers.addresses(self, signal)) {
        const by: Attempt = { event: 'rejoin', address };
        try {
          await peers.ask(
            address,
            async ({ client, verdict, timeoutMs }) => {
              const { stateDiskKey, nextStateDiskKey, measurementSecret } = await client.issueRejoinTicket(
                { diskUuid },
                { timeoutMs, signal },
              );
              try {
                const nextDiskKey = nextStateDiskKey.length === 0 ? undefined : nextStateDiskKey;
                const keys = { diskKey: stateDiskKey, nextDiskKey, measurementSecret };
                await unlocker.unlock(keys, by, (clusterId) => checkPeerCluster(verdict, clusterId));
              } catch (error) {
                // Who was not reached, or gave nothing, has not been refused anything.
                audit.refused(by, error instanceof AsterismError ? error.code : 'unexpected');
                throw error;
              } finally {
                zero(stateDiskKey, nextStateDiskKey, measurementSecret);
              }
            },
            signal,
          );
          log.info({ address }, 'rejoined');
          return;
        } catch (err) {
          signal.throwIfAborted();
          log.info({ err, address }, 'no rejoin by this control plane');
        }
      }
    } catch (err) {
      signal.throwIfAborted();
      log.info({ err }, 'metadata cannot be read');
    }
    await sleep(options.intervalMs ?? 10_000, undefined, { signal });
  }
}
