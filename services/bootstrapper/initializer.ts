import { randomBytes } from 'node:crypto';
import { equal, isZero, zero } from '@asterism/bytes/bytes';
import { fromBase64, fromHex, toBase64, toHex, toUtf8 } from '@asterism/bytes/encoding';
import { MEASUREMENT_SECRET_ID } from '@asterism/crypto/derive';
import { AsterismError } from '@asterism/errors/errors';
import type { KeyHome } from '@asterism/kms/types';
import { parseKmsUri } from '@asterism/kms/uri';
import { nodeNameOf } from '@asterism/kubernetes/kubeadm';
import type { Metadata } from '@asterism/metadata/types';
import { StatusError } from '@asterism/rpc/status';
import { CLUSTER_ID_PCR, clusterIdPcr } from '@asterism/runtime/machine-tpm';
import { deliveryLeftMs, markEnded } from './delivery.ts';
import {
  adminKubeconfig,
  apiEndpointOf,
  INIT_PHASES,
  type InitContext,
  type InitMachine,
  type Keys,
} from './init-phases.ts';
import { lookUp } from './init-place.ts';
import type { InitOrder } from './init-request.ts';
import { type InitAnswer, type InitEventValue, InitRun } from './init-run.ts';
import { Journal } from './journal.ts';
import type { NodeLock } from './node-lock.ts';
import { type Phase, runPhases } from './phases.ts';

/** Which measurements joining nodes must meet. */
export interface JoinPolicy {
  /**
   * @returns the JSON for join-config
   * @throws PolicyError this node itself would not be admitted (PCR 15 is not looked at)
   */
  settle(
    order: Pick<InitOrder, 'joinMeasurements' | 'enforcedPcrs'>,
    pcrs: ReadonlyMap<number, Uint8Array>,
  ): string;
}

export interface InitializerOptions {
  readonly machine: InitMachine;
  readonly metadata: Metadata;
  readonly keys: Keys;
  readonly policy: JoinPolicy;
  readonly lock: NodeLock;
  readonly log: { info(fields: object, message: string): void; error(fields: object, message: string): void };
  /** All phases are done; the answer is there for so long, unless it is confirmed. */
  readonly onEnded?: (leftMs: number) => void;
  /** By the provider's word another machine takes the init. */
  readonly onElsewhere?: () => void;
  /** Default INIT_PHASES. */
  readonly phases?: readonly Phase<InitContext>[];
}

/** Carries out at most one init at a time. */
export class Initializer {
  readonly #options: InitializerOptions;
  #run: InitRun | undefined;
  readonly #stop = new AbortController();

  constructor(options: InitializerOptions) {
    this.#options = options;
  }

  /** A line of the programs that the init runs. */
  log(line: string): void {
    this.#emit?.({ kind: 'log', line });
  }
  #emit: ((event: InitEventValue) => void) | undefined;

  /**
   * Starts the init, or goes on where one stopped, or attaches to one whose caller was cut off. The caller has
   * the place of the run's listener and must leave() it.
   * @throws StatusError FAILED_PRECONDITION another init or a join is under way
   */
  begin(order: InitOrder): InitRun {
    const run = this.#run;
    if (run !== undefined && !run.ended) {
      if (run.fingerprint !== order.fingerprint) throw busy('another init is under way');
      if (!run.tryListen()) throw busy('this init is under way and its caller is connected');
      return run;
    }
    if (!this.#options.lock.tryTake('init')) throw busy('this node is joining a cluster');
    const fresh = new InitRun(order.fingerprint, (emit) => this.#work(order, emit));
    fresh.tryListen();
    this.#run = fresh;
    return fresh;
  }

  /** Gives up what is under way; the journal has what is done. */
  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#run?.result.catch(() => {});
  }

  /**
   * The caller has the answer on its disk: this init is history. May be called again.
   * @throws StatusError FAILED_PRECONDITION there is no such init, or it has not ended
   */
  async confirm(clusterId: Uint8Array): Promise<void> {
    const journal = await Journal.load(this.#options.machine.layout.initJournal);
    if (journal === undefined || journal.clusterId !== toHex(clusterId)) {
      throw new StatusError(
        'FAILED_PRECONDITION',
        'ERR_INIT_CONFIRM',
        'this node has made no cluster with that id: confirm the init of the cluster that it answered with',
      );
    }
    if (deliveryLeftMs(journal) === undefined) {
      throw new StatusError(
        'FAILED_PRECONDITION',
        'ERR_INIT_CONFIRM',
        'the init has not ended, so there is no answer to confirm: run init again',
      );
    }
    await journal.markComplete();
  }

  /** Nobody confirmed in time: the answer is not given any more. */
  async expire(): Promise<void> {
    const journal = await Journal.load(this.#options.machine.layout.initJournal);
    await journal?.markComplete();
  }

  async #work(order: InitOrder, emit: (event: InitEventValue) => void): Promise<InitAnswer> {
    const { lock, log, machine } = this.#options;
    const signal = this.#stop.signal;
    this.#emit = emit;
    let kms: KeyHome | undefined;
    try {
      kms = await this.#options.keys.open(order);
      const { context, journal } = await this.#prepare(order, kms);
      await runPhases(
        this.#options.phases ?? INIT_PHASES,
        context,
        journal,
        (report) => {
          log.info(report, 'init phase');
          emit({ kind: 'progress', report });
        },
        signal,
      );
      await markEnded(journal);
      this.#options.onEnded?.(deliveryLeftMs(journal)!);
      const kubeconfig = toUtf8(await adminKubeconfig(context, signal));
      return { kubeconfig, ownerId: new Uint8Array(), clusterId: context.clusterId };
    } catch (err) {
      log.error({ err }, 'init stopped; the same order may be given again');
      // Once PCR 15 is extended the node can be nothing else any more, and the lock stays.
      const pcr = await machine.tpm.readPcrs().then(
        (pcrs) => pcrs.get(CLUSTER_ID_PCR),
        () => undefined,
      );
      if (pcr !== undefined && isZero(pcr)) lock.release('init');
      throw err instanceof AsterismError
        ? err
        : new AsterismError('ERR_INIT', `init failed: ${err}`, { cause: err });
    } finally {
      this.#emit = undefined;
      await kms?.close();
    }
  }

  async #prepare(order: InitOrder, kms: KeyHome): Promise<{ context: InitContext; journal: Journal }> {
    const { machine, metadata, keys, policy } = this.#options;
    const pcrs = await machine.tpm.readPcrs();
    const pcr = pcrs.get(CLUSTER_ID_PCR);
    if (pcr === undefined) throw new AsterismError('ERR_TPM_PCR', 'the TPM has no SHA-256 bank with PCR 15');
    if (isZero(pcr)) await this.#refuseElsewhere();
    const path = machine.layout.initJournal;
    let journal = await Journal.load(path);
    // PCR 15 forgets at a reboot, and the disk-mapper extends it again for a disk that is a member's. A journal
    // that is past the lock on a node whose PCR is zero thus belongs to a life before the disk was taken over.
    if (journal !== undefined && isZero(pcr) && journal.isDone('node-lock')) {
      await journal.remove();
      journal = undefined;
    }

    const measurementSalt = order.measurementSalt ?? saltOf(journal) ?? Uint8Array.from(randomBytes(32));
    const clusterId = await this.#clusterIdOf(order, kms, measurementSalt);
    if (!isZero(pcr) && !equal(pcr, clusterIdPcr(clusterId))) {
      throw new StatusError(
        'FAILED_PRECONDITION',
        'ERR_NODE_INITIALIZED',
        'this node belongs to another cluster than the one that master secret and salt name',
      );
    }
    if (isZero(pcr)) {
      // Nothing is final yet: another order may take the place of one that stopped early.
      if (
        journal !== undefined &&
        (journal.clusterId !== toHex(clusterId) || journal.order !== order.fingerprint)
      ) {
        await journal.remove();
        journal = undefined;
      }
    } else if (journal === undefined) {
      throw new StatusError(
        'FAILED_PRECONDITION',
        'ERR_NODE_INITIALIZED',
        'PCR 15 says that this node is a member, but its state disk has no account of an init',
      );
    }
    if (journal?.complete) {
      throw new StatusError(
        'FAILED_PRECONDITION',
        'ERR_NODE_INITIALIZED',
        'the init of this node has ended and its answer is confirmed; it is not given again',
      );
    }
    if (journal !== undefined && journal.order !== order.fingerprint) {
      throw new StatusError(
        'FAILED_PRECONDITION',
        'ERR_INIT_ORDER',
        'an init of this node was begun with another version, name, components, measurements or SANs: ' +
          'give the same order again, or terminate and create anew',
      );
    }

    const self = await metadata.self();
    if (self.vpcIp === undefined) {
      throw new StatusError(
        'UNAVAILABLE',
        'ERR_METADATA',
        'metadata does not know the address of this node yet',
      );
    }
    const measurements = policy.settle(order, pcrs);
    if (journal === undefined) {
      // Of an order that was given up: they belong to another cluster.
      await keys.forget();
      journal = await Journal.begin(path, 'init', toHex(clusterId), order.fingerprint);
      await journal.setFact('measurementSalt', toBase64(measurementSalt));
    }
    const context: InitContext = {
      machine,
      order,
      clusterId: fromHex(journal.clusterId),
      measurementSalt,
      measurements,
      kms,
      keys,
      self: { ...self, vpcIp: self.vpcIp },
      nodeName: nodeNameOf(self.name),
      apiEndpoint: apiEndpointOf(await metadata.loadBalancerEndpoint()),
    };
    return { context, journal };
  }

  /** @throws StatusError INVALID_ARGUMENT the order does not say by which KMS the cluster's identity is kept */
  async #clusterIdOf(order: InitOrder, kms: KeyHome, measurementSalt: Uint8Array): Promise<Uint8Array> {
    const external = kms.kind === 'external';
    if (external !== (order.measurementSecret !== undefined)) {
      throw new StatusError(
        'INVALID_ARGUMENT',
        'ERR_INIT_REQUEST',
        external
          ? 'init request refused: with an external KMS it must bring the measurement_secret'
          : 'init request refused: measurement_secret follows from the master secret',
      );
    }
    const secret = order.measurementSecret ?? (await kms.getDek(MEASUREMENT_SECRET_ID, 32));
    try {
      const clusterId = await this.#options.keys.clusterId(secret, measurementSalt);
      if (external && clusterOf(order.kmsUri) !== toHex(clusterId)) {
        throw new StatusError(
          'INVALID_ARGUMENT',
          'ERR_INIT_REQUEST',
          'init request refused: kms_uri names another cluster than measurement_secret and salt',
        );
      }
      return clusterId;
    } finally {
      if (!external) zero(secret);
    }
  }

  /** Looked at anew for each order: when this machine started, the provider may not have known all others. */
  async #refuseElsewhere(): Promise<void> {
    const found = await lookUp(this.#options.metadata, this.#stop.signal);
    if (found.place === 'here') return;
    if (found.place === 'elsewhere') this.#options.onElsewhere?.();
    throw new StatusError(
      'UNAVAILABLE',
      'ERR_INIT_ELSEWHERE',
      `this machine does not take the init of its cluster: ${found.why}. The first control plane by name does; try again`,
    );
  }
}

/** The cluster that an external KMS URI binds keys to. */
function clusterOf(kmsUri: string): string | undefined {
  const reference = parseKmsUri(kmsUri);
  return reference.kind === 'external' ? reference.clusterId : undefined;
}

function saltOf(journal: Journal | undefined): Uint8Array | undefined {
  const fact = journal?.fact('measurementSalt');
  return fact === undefined ? undefined : fromBase64(fact);
}

function busy(why: string): StatusError {
  return new StatusError('FAILED_PRECONDITION', 'ERR_NODE_BUSY', `node is already being activated: ${why}`);
}
