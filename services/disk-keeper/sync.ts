import { equal, isZero } from '@asterism/bytes/bytes';
import { DiskError } from '@asterism/disk/cryptsetup';
import type { StateDisk } from '@asterism/disk/state-disk';
import { AsterismError, PolicyError, UnreachableError } from '@asterism/errors/errors';
import type { Metadata } from '@asterism/metadata/types';
import type { JoinPeer, JoinPeers } from '@asterism/rpc/join-peers';
import type { AuditLog } from '@asterism/runtime/audit-log';
import { CLUSTER_ID_PCR, type MachineTpm } from '@asterism/runtime/machine-tpm';
import { type IssuedKeys, readIssuedKeys } from './issued-keys.ts';

export interface SyncParts {
  readonly disk: StateDisk;
  readonly tpm: Pick<MachineTpm, 'readPcrs'>;
  readonly metadata: Pick<Metadata, 'self'>;
  readonly peers: Pick<JoinPeers, 'addresses' | 'ask'>;
  readonly audit: Pick<AuditLog, 'append'>;
  readonly log: { info(fields: object, message: string): void };
}

export interface SyncResult {
  /** LUKS2 UUID. */
  readonly diskUuid: string;
  /** Name of the only key that opens the disk, as was proven. */
  readonly keyName: string;
  readonly changed: boolean;
}

/**
 * Makes this node's disk what the JoinService says of it: its key, and the token in its header. Cut off anywhere, it
 * leaves a disk that one of the two keys opens which the JoinService gives, and the next run goes on.
 *
 * @throws PolicyError ERR_NO_MEMBER the node is no member (yet)
 * @throws DiskError ERR_DISK_WRONG_KEY no key that the JoinService gives opens the disk: nothing was changed
 * @throws UnreachableError no JoinService answers
 */
export async function syncDisk(parts: SyncParts, signal: AbortSignal): Promise<SyncResult> {
  const { disk, tpm, metadata, peers, log } = parts;
  const ownPcr = (await tpm.readPcrs(signal)).get(CLUSTER_ID_PCR);
  const { uuid: diskUuid, initialized } = await disk.header();
  if (ownPcr === undefined || isZero(ownPcr) || initialized !== true)
    throw new PolicyError(
      'ERR_NO_MEMBER',
      'this node is no member of a cluster yet: its disk has no key to keep',
    );
  const self = await metadata.self(signal);
  const others = await peers.addresses(self, signal);
  // Its own JoinService last: where it is the only control plane there is no other.
  const own = self.role === 'ControlPlane' && self.vpcIp !== undefined ? [self.vpcIp] : [];
  let failure: unknown = new UnreachableError('the provider names no control plane that could be asked');
  for (const address of [...others, ...own]) {
    try {
      return await peers.ask(
        address,
        (peer) => {
          // Whoever gives keys of this cluster must be in it.
          const pcr = peer.verdict.pcrs.get(CLUSTER_ID_PCR);
          if (pcr === undefined || !equal(pcr, ownPcr))
            throw new PolicyError(
              'ERR_PEER_CLUSTER',
              `the node at ${address} is a member of another cluster`,
            );
          return new DiskSync(parts, peer, address, diskUuid, signal).run();
        },
        signal,
      );
    } catch (err) {
      signal.throwIfAborted();
      log.info({ err, address }, 'no keys by this control plane');
      // What one of them has said counts more than that another was not there.
      if (!(err instanceof UnreachableError) || failure instanceof UnreachableError) failure = err;
    }
  }
  throw failure;
}

/** One node's disk and the JoinService that was asked. */
class DiskSync {
  readonly #parts: SyncParts;
  readonly #peer: JoinPeer;
  readonly #address: string;
  readonly #diskUuid: string;
  readonly #signal: AbortSignal;

  constructor(parts: SyncParts, peer: JoinPeer, address: string, diskUuid: string, signal: AbortSignal) {
    this.#parts = parts;
    this.#peer = peer;
    this.#address = address;
    this.#diskUuid = diskUuid;
    this.#signal = signal;
  }

  async run(): Promise<SyncResult> {
    const { disk } = this.#parts;
    const keys = await this.#ask('');
    try {
      await this.#checkOpens(keys);
      // Before a key slot changes: who recovers the node finds the name of the key that opens it at every moment.
      const wasRenamed = await disk.setKeyToken(keys.token);
      if (keys.next === undefined) {
        const hadOthers = await this.#removeOthers(keys.present.key);
        return this.#result(keys.present.name, wasRenamed || hadOthers);
      }
      await this.#change(keys, keys.next);
      return this.#result(keys.next.name, true);
    } finally {
      keys.forget();
    }
  }

  async #ask(proven: string): Promise<IssuedKeys> {
    const { client, timeoutMs } = this.#peer;
    const request = { diskUuid: this.#diskUuid, proven };
    return readIssuedKeys(await client.issueDiskKeys(request, { timeoutMs, signal: this.#signal }));
  }

  /** What the header says is not written over before: it may be all that is known of a disk whose record is lost. */
  async #checkOpens({ present, next }: IssuedKeys): Promise<void> {
    const { disk } = this.#parts;
    if (await disk.testKey(present.key)) return;
    if (next !== undefined && (await disk.testKey(next.key))) return;
    const names = next === undefined ? present.name : `${present.name} nor key ${next.name}`;
    throw new DiskError(
      'ERR_DISK_WRONG_KEY',
      `key ${names} opens the disk ${this.#diskUuid} not: what the cluster has recorded of it is not true`,
    );
  }

  async #change({ present }: IssuedKeys, next: NonNullable<IssuedKeys['next']>): Promise<void> {
    const { disk, log } = this.#parts;
    const about = { diskUuid: this.#diskUuid, from: present.name, to: next.name, address: this.#address };
    await this.#parts.audit.append({ event: 'disk-key-change', outcome: 'granted', ...about });
    await disk.rekey(present.key, next.key);
    if (!(await disk.testKey(next.key)) || (await disk.testKey(present.key)))
      throw new DiskError(
        'ERR_DISK_REKEY',
        'after the change it is not the new key alone that opens the disk',
      );
    await this.#parts.audit.append({ event: 'disk-key-changed', outcome: 'granted', ...about });
    log.info(about, 'the key of the disk is changed');
    const after = await this.#ask(next.name);
    try {
      if (after.present.name !== next.name)
        throw new AsterismError('ERR_DISK_KEYS', 'the JoinService does not take note of the change');
      await disk.setKeyToken(after.token);
    } finally {
      after.forget();
    }
  }

  /** Key slots that an earlier life of the disk has left. */
  async #removeOthers(key: Uint8Array): Promise<boolean> {
    const { disk } = this.#parts;
    if ((await disk.header()).keyslots.length === 1) return false;
    await disk.rekey(key, key);
    return true;
  }

  #result(keyName: string, changed: boolean): SyncResult {
    return { diskUuid: this.#diskUuid, keyName, changed };
  }
}
