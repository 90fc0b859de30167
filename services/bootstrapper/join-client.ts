import { setTimeout as sleep } from 'node:timers/promises';
import { zero } from '@asterism/bytes/bytes';
import { fromHex, toHex } from '@asterism/bytes/encoding';
import { AsterismError } from '@asterism/errors/errors';
import { nodeNameOf } from '@asterism/kubernetes/kubeadm';
import { makeKubeletRequest } from '@asterism/kubernetes/kubelet';
import type { InstanceMetadata, Metadata } from '@asterism/metadata/types';
import { checkPeerCluster, type JoinPeers } from '@asterism/rpc/join-peers';
import type { InitMachine, Keys } from './init-phases.ts';

import { type JoinContext, joinPhases, mayBeEtcdMember } from './join-phases.ts';
import {
  checkTicket,
  type JoinTicket,
  loadTicket,
  removeTicket,
  saveTicket,
  ticketIsExpired,
} from './join-ticket.ts';
import { Journal } from './journal.ts';
import type { NodeLock } from './node-lock.ts';
import { runPhases } from './phases.ts';

export interface JoinClientOptions {
  readonly machine: InitMachine;
  readonly metadata: Metadata;
  readonly peers: JoinPeers;
  readonly keys: Pick<Keys, 'clusterId'>;
  readonly lock: NodeLock;
  readonly log: { info(fields: object, message: string): void; warn(fields: object, message: string): void };
  /** Milliseconds between two rounds over all control planes. Default 5,000. */
  readonly intervalMs?: number;
  /** Milliseconds between two tries of a phase that failed. Default 10,000. */
  readonly retryMs?: number;
}

/** The ticket counts no more: the node must begin its life anew, with a new disk. */
export class TicketExpiredError extends AsterismError {
  constructor(cause: unknown) {
    super(
      'ERR_JOIN_TICKET_EXPIRED',
      'the join did not succeed before its ticket expired; the state disk is given up and the node reboots',
      { cause },
    );
  }
}

/** Asks the control planes for a ticket until one gives it, then makes this machine a node of their cluster. */
export class JoinClient {
  readonly #options: JoinClientOptions;

  constructor(options: JoinClientOptions) {
    this.#options = options;
  }

  /**
   * @returns 'joined', or 'given-up' when the signal aborts before there is a ticket (an init came first)
   * @throws TicketExpiredError
   */
  async run(signal: AbortSignal): Promise<'joined' | 'given-up'> {
    const { log } = this.#options;
    while (!signal.aborted) {
      try {
        const joined = await this.#round(signal);
        if (joined) return 'joined';
      } catch (err) {
        if (err instanceof TicketExpiredError) throw err;
        if (!signal.aborted) log.warn({ err }, 'a round of the join failed');
      }
      await sleep(this.#options.intervalMs ?? 5000, undefined, { signal }).catch(() => {});
    }
    return 'given-up';
  }

  /** Goes on with a join whose journal and ticket are on the state disk. */
  async resume(journal: Journal, signal: AbortSignal): Promise<void> {
    const { machine, lock } = this.#options;
    lock.tryTake('join');
    let ticket: JoinTicket;
    try {
      ticket = await loadTicket(machine.layout.joinTicket);
    } catch (cause) {
      if (!mayBeEtcdMember(journal)) throw new TicketExpiredError(cause);
      throw new AsterismError(
        'ERR_JOIN_TICKET',
        'the join cannot go on without its ticket, and etcd may count on this node: ' +
          'remove it from etcd (etcdctl member remove), then replace the machine',
        { cause },
      );
    }
    await this.#finish(journal, ticket, signal);
  }

  async #round(signal: AbortSignal): Promise<boolean> {
    const { metadata, peers, lock, log } = this.#options;
    if (lock.holder === 'init') return false;
    const self = await metadata.self(signal);
    if (self.vpcIp === undefined || self.role === 'Unknown') {
      log.info({}, 'metadata does not know role or address of this node yet');
      return false;
    }
    for (const address of await peers.addresses(self, signal)) {
      if (signal.aborted) return false;
      try {
        return await this.#joinBy(address, { ...self, vpcIp: self.vpcIp }, signal);
      } catch (err) {
        if (err instanceof TicketExpiredError) throw err;
        log.info({ err, address }, 'no join by this control plane');
      }
    }
    return false;
  }

  async #joinBy(
    address: string,
    self: InstanceMetadata & { readonly vpcIp: string },
    signal: AbortSignal,
  ): Promise<boolean> {
    const { machine, peers, keys, lock, log } = this.#options;
    const controlPlane = self.role === 'ControlPlane';
    const { uuid } = await machine.disk.header();
    const { csr, privateKeyPem } = await makeKubeletRequest(nodeNameOf(self.name), self.vpcIp);
    const { ticket, clusterId } = await peers.ask(address, async ({ client, verdict, timeoutMs }) => {
      const response = await client.issueJoinTicket(
        { diskUuid: uuid, certificateRequest: csr, isControlPlane: controlPlane },
        { timeoutMs, signal },
      );
      const checked = checkTicket(response, privateKeyPem, controlPlane, new Date());
      const id = await keys.clusterId(response.measurementSecret, response.measurementSalt);
      zero(response.measurementSecret);
      checkPeerCluster(verdict, id);
      return { ticket: checked, clusterId: id };
    });
    if (!lock.tryTake('join')) {
      log.info({}, 'an init came first; the ticket is dropped');
      return false;
    }
    await saveTicket(machine.layout.joinTicket, ticket);
    const journal = await Journal.begin(machine.layout.joinJournal, 'join', toHex(clusterId), uuid);
    await this.#finish(journal, ticket, signal);
    return true;
  }

  /**
   * From here on the node is this cluster's: whatever fails is tried again while the ticket lasts, and without end once
   * the node may be a member of etcd. The cluster may have no quorum without it.
   */
  async #finish(journal: Journal, ticket: JoinTicket, signal: AbortSignal): Promise<void> {
    const { machine, metadata, log } = this.#options;
    while (true) {
      try {
        const self = await metadata.self(signal);
        if (self.vpcIp === undefined)
          throw new AsterismError('ERR_METADATA', 'metadata has no address of this node');
        const context: JoinContext = {
          machine,
          ticket,
          clusterId: fromHex(journal.clusterId),
          self: { ...self, vpcIp: self.vpcIp },
          nodeName: nodeNameOf(self.name),
          journal,
        };
        await runPhases(
          joinPhases(self.role),
          context,
          journal,
          (report) => log.info(report, 'join phase'),
          signal,
        );
        await journal.markComplete();
        await removeTicket(machine.layout.joinTicket);
        return;
      } catch (err) {
        signal.throwIfAborted();
        log.warn({ err }, 'the join stopped; it is tried again');
        if (ticketIsExpired(ticket, new Date()) && !mayBeEtcdMember(journal))
          throw new TicketExpiredError(err);
      }
      await sleep(this.#options.retryMs ?? 10_000, undefined, { signal });
    }
  }
}
