import { zero } from '@asterism/bytes/bytes';
import { fromUtf8 } from '@asterism/bytes/encoding';
import type { DiskKeyToken } from '@asterism/disk/key-token';
import { AsterismError, BusyError, ParseError } from '@asterism/errors/errors';
import { NO_STORE_URI } from '@asterism/kms/cluster-uri';
import { KmsUnavailableError } from '@asterism/kms/errors';
import { type HomeConfiguration, parseHomeCredentials } from '@asterism/kms/key-configuration';
import type { KeyHomeOptions, StoreChoice } from '@asterism/kms/open';
import type { DekStore } from '@asterism/kms/store';
import type { KeyHome } from '@asterism/kms/types';
import { parseKmsUri, parseStoreUri } from '@asterism/kms/uri';
import type { API, RecoverMessage } from '@asterism/rpc/gen/recover_pb';
import type { Handlers } from '@asterism/rpc/handlers';
import { StatusError } from '@asterism/rpc/status';
import { AttemptLimiter, type AttemptLimits, callerOf } from '@asterism/runtime/attempt-limiter';
import { FairTurns } from '@asterism/runtime/fair-turns';
import type { Attempt, MemberAudit } from './audit.ts';
import { headerStore, readOnly } from './header-store.ts';
import { recoveryKeys } from './recovery-keys.ts';
import { type MemberKeys, type Unlocker, WrongKeyError } from './unlock.ts';

export interface RecoveryServiceOptions {
  /** LUKS2 UUID in lower case. */
  readonly diskUuid: string;
  /** What the disk's header says of its keys, now. */
  readonly keyToken: () => Promise<DiskKeyToken | undefined>;
  readonly openHome: (options: KeyHomeOptions) => Promise<KeyHome>;
  readonly openStore: (choice: StoreChoice) => Promise<DekStore>;
  readonly unlocker: Unlocker;
  readonly audit: Pick<MemberAudit, 'refused'>;
  readonly limits?: Partial<AttemptLimits>;
  readonly log: { info(fields: object, message: string): void };
  /** The node is a member again; the answer is about to leave. */
  readonly onRecovered: () => void;
}

const LIMITS: AttemptLimits = { freeAttempts: 9, firstWaitMs: 10_000, maxWaitMs: 300_000 };

/**
 * recoverproto.API: who has the master secret, or may use the KMS, brings a rebooted control plane back. It answers OK
 * only after the proof.
 *
 * The key is derived from a secret that nobody can guess, so the wait after wrong ones is there for the node's
 * processor only. It is each caller's own, and so is its place in the line: nobody keeps the owner out.
 */
export function recoveryService(options: RecoveryServiceOptions): Handlers<typeof API> {
  const limiter = new AttemptLimiter({ ...LIMITS, ...options.limits });
  const turns = new FairTurns();
  /** Callers for whom a KMS is asked, or who wait for their turn. */
  const asking = new Set<string>();

  async function attempt(request: RecoverMessage, by: Attempt): Promise<void> {
    const wait = limiter.waitMs(by.address);
    if (wait > 0) {
      throw new StatusError(
        'RESOURCE_EXHAUSTED',
        'ERR_RECOVERY_THROTTLED',
        `too many wrong master secrets from your address: try again in ${Math.ceil(wait / 1000)} s`,
      );
    }
    const choice = readRequest(request);
    // Waits after failures bound nothing while the first of many calls has not failed yet.
    const caller = callerOf(by.address);
    if (asking.has(caller))
      throw new BusyError('ERR_BUSY', 'an earlier call of yours is being worked on: try again in a second');
    asking.add(caller);
    try {
      const keys = await keysOf(options, choice, await options.keyToken());
      try {
        await turns.take(by.address, () => recover(options, choice, keys, by));
      } finally {
        zero(keys.diskKey, keys.measurementSecret, ...(keys.nextDiskKey ? [keys.nextDiskKey] : []));
      }
    } finally {
      asking.delete(caller);
    }
  }

  return {
    async recover(request, { peer: { address } }) {
      const by: Attempt = { event: 'recovery', address };
      try {
        await attempt(request, by);
      } catch (error) {
        const reason = error instanceof AsterismError ? error.code : 'unexpected';
        // What an external KMS makes this node do costs more than a wrong secret.
        const costly = isExternal(request) && !['ERR_RECOVERY_REQUEST', 'ERR_BUSY'].includes(reason);
        if (reason === 'ERR_RECOVERY_KEY' || costly) limiter.failed(address);
        options.audit.refused(by, reason);
        options.log.info({ err: error, address }, 'a recovery was refused');
        throw error;
      }
      options.onRecovered();
      return {};
    },
  };
}

interface HomeChoice {
  readonly kind: KeyHome['kind'];
  /** Whether wrapped keys are elsewhere too than in the Kubernetes that waits for this node. */
  readonly hasOtherStore: boolean;
  readonly home: HomeConfiguration;
}

const isExternal = ({ kmsUri }: RecoverMessage): boolean => !kmsUri.startsWith('kms://cluster-kms');

function readRequest({ kmsUri, storageUri, kmsCredentials }: RecoverMessage): HomeChoice {
  if (kmsUri === '' || kmsUri.length > 8192 || storageUri.length > 8192)
    throw malformed('kms_uri or storage_uri is missing or too long');
  try {
    const kms = parseKmsUri(kmsUri);
    const store = storageUri === '' ? 'none' : parseStoreUri(storageUri);
    if (kms.kind === 'external') refusePlain(kms.parameters);
    if (store !== 'none') refusePlain(store.parameters);
    const credentials =
      kmsCredentials.length === 0 ? undefined : parseHomeCredentials(fromUtf8(kmsCredentials));
    return {
      kind: kms.kind,
      hasOtherStore: store !== 'none' && store.name !== 'kubernetes',
      home: {
        kmsUri,
        storageUri: storageUri === '' ? NO_STORE_URI : storageUri,
        ...(credentials && { credentials }),
      },
    };
  } catch (cause) {
    throw malformed('the KMS URI or its credentials are malformed', cause);
  }
}

/** What listens on this machine alone is not for callers from outside to talk to. */
function refusePlain(parameters: Readonly<Record<string, string>>): void {
  if (Object.values(parameters).some((value) => /^http:/i.test(value)))
    throw new ParseError('an endpoint is plain http', { code: 'ERR_KMS_URI' });
}

function malformed(why: string, cause?: unknown): StatusError {
  return new StatusError('INVALID_ARGUMENT', 'ERR_RECOVERY_REQUEST', why, { cause });
}

async function recover(
  { diskUuid, unlocker }: RecoveryServiceOptions,
  { kind }: HomeChoice,
  keys: MemberKeys,
  by: Attempt,
): Promise<void> {
  try {
    await unlocker.unlock(keys, by);
  } catch (cause) {
    if (!(cause instanceof WrongKeyError)) throw cause;
    throw new StatusError(
      'INVALID_ARGUMENT',
      'ERR_RECOVERY_KEY',
      kind === 'cluster'
        ? 'this master secret does not open the disk of this node: it is the one of another cluster, or damaged'
        : `the key that this KMS gives for the disk ${diskUuid} does not open it`,
      { cause },
    );
  }
}

/**
 * The disk carries its own wrapped keys, which works without any store. Where its header was damaged the cluster's store
 * has them too, unless that is the Kubernetes which waits for this node.
 */
async function keysOf(
  { diskUuid, openHome, openStore }: RecoveryServiceOptions,
  { kind, hasOtherStore, home }: HomeChoice,
  token: DiskKeyToken | undefined,
): Promise<MemberKeys> {
  const withStore = async (store: DekStore | undefined, names: DiskKeyToken | undefined) => {
    const open = await openHome({ ...home, ...(store && { store }) });
    try {
      return await recoveryKeys(open, diskUuid, names);
    } finally {
      await open.close();
    }
  };
  if (kind === 'cluster') return withStore(undefined, token);
  try {
    return await withStore(headerStore(diskUuid, token), token);
  } catch (error) {
    if (error instanceof KmsUnavailableError || !hasOtherStore) throw error;
    const { storageUri, credentials } = home;
    const given = credentials && { credentials: credentials.storage };
    return withStore(readOnly(await openStore({ storageUri, ...given })), undefined);
  }
}
