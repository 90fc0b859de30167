import { rm } from 'node:fs/promises';
import { equal, isZero } from '@asterism/bytes/bytes';
import { fromHex } from '@asterism/bytes/encoding';
import type { StateLayout } from '@asterism/disk/layout';
import { AsterismError } from '@asterism/errors/errors';
import { clusterIdPcr } from '@asterism/runtime/machine-tpm';
import { deliveryLeftMs } from './delivery.ts';
import { Journal } from './journal.ts';

/** What a bootstrapper that starts has to do. */
export type Start =
  /** No member: wait for an init or a ticket, whichever comes first. */
  | { readonly kind: 'fresh' }
  /** A member that rebooted: start containerd and the kubelet. */
  | { readonly kind: 'member' }
  /** An init of this node was cut off: serve init again, for the same cluster only. */
  | { readonly kind: 'resume-init' }
  /** A member by an init whose answer nobody has confirmed: as a member, and serve that answer for so long. */
  | { readonly kind: 'deliver-init'; readonly leftMs: number }
  | { readonly kind: 'resume-join'; readonly journal: Journal };

/**
 * PCR 15 is the truth about membership (the TPM keeps it until the next boot); the journals say how far it got.
 * @param pcr PCR 15, 32 bytes
 * @throws AsterismError ERR_NODE_STATE the two contradict each other: nothing is started
 */
export async function decideStart(pcr: Uint8Array, layout: StateLayout): Promise<Start> {
  const join = await Journal.load(layout.joinJournal);
  if (isZero(pcr)) {
    // A ticket that never reached PCR 15: another one is asked for.
    await join?.remove();
    await rm(layout.joinTicket, { force: true });
    return { kind: 'fresh' };
  }
  const init = await Journal.load(layout.initJournal);
  const isOfThisBoot = (journal: Journal | undefined): journal is Journal =>
    journal !== undefined && equal(clusterIdPcr(fromHex(journal.clusterId)), pcr);
  if (isOfThisBoot(join)) return join.complete ? { kind: 'member' } : { kind: 'resume-join', journal: join };
  if (isOfThisBoot(init)) {
    if (init.complete) return { kind: 'member' };
    const leftMs = deliveryLeftMs(init);
    return leftMs === undefined ? { kind: 'resume-init' } : { kind: 'deliver-init', leftMs };
  }
  throw new AsterismError(
    'ERR_NODE_STATE',
    'PCR 15 names a cluster of which the state disk has no account: the node is not started; replace it',
  );
}
