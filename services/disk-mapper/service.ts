import { zero } from '@asterism/bytes/bytes';
import { AsterismError, ParseError } from '@asterism/errors/errors';
import type { KeyManager } from '@asterism/kms/types';
import type { API, RecoverMessage } from '@asterism/rpc/gen/recover_pb';
import type { Handlers } from '@asterism/rpc/handlers';
import { StatusError } from '@asterism/rpc/status';
import { AttemptLimiter, type AttemptLimits } from '@asterism/runtime/attempt-limiter';
import { FairTurns } from '@asterism/runtime/fair-turns';
import type { Attempt, MemberAudit } from './audit.ts';
import { type Unlocker, WrongKeyError } from './unlock.ts';

export interface RecoveryServiceOptions {
  /** LUKS2 UUID in lower case. */
  readonly diskUuid: string;
  readonly openKms: (kmsUri: string, storageUri: string) => Promise<KeyManager>;
  readonly unlocker: Unlocker;
  readonly audit: Pick<MemberAudit, 'refused'>;
  readonly limits?: Partial<AttemptLimits>;
  readonly log: { info(fields: object, message: string): void };
  /** The node is a member again; the answer is about to leave. */
  readonly onRecovered: () => void;
}

const LIMITS: AttemptLimits = { freeAttempts: 9, firstWaitMs: 10_000, maxWaitMs: 300_000 };

/**
 * recoverproto.API: who has the master secret brings a rebooted control plane back. It answers OK only after the proof.
 *
 * The key is derived from a secret that nobody can guess, so the wait after wrong ones is there for the node's
 * processor only. It is each caller's own, and so is its place in the line: nobody keeps the owner out.
 */
export function recoveryService(options: RecoveryServiceOptions): Handlers<typeof API> {
  const limiter = new AttemptLimiter({ ...LIMITS, ...options.limits });
  const turns = new FairTurns();

  async function attempt(request: RecoverMessage, by: Attempt): Promise<void> {
    const wait = limiter.waitMs(by.address);
    if (wait > 0) {
      throw new StatusError(
        'RESOURCE_EXHAUSTED',
        'ERR_RECOVERY_THROTTLED',
        `too many wrong master secrets from your address: try again in ${Math.ceil(wait / 1000)} s`,
      );
    }
    const kms = await open(options, request);
    try {
      await turns.take(by.address, () => recover(options, kms, by));
    } finally {
      await kms.close();
    }
  }

  return {
    async recover(request, { peer: { address } }) {
      const by: Attempt = { event: 'recovery', address };
      try {
        await attempt(request, by);
      } catch (error) {
        const reason = error instanceof AsterismError ? error.code : 'unexpected';
        if (reason === 'ERR_RECOVERY_KEY') limiter.failed(address);
        options.audit.refused(by, reason);
        options.log.info({ err: error, address }, 'a recovery was refused');
        throw error;
      }
      options.onRecovered();
      return {};
    },
  };
}

async function open(
  { openKms }: RecoveryServiceOptions,
  { kmsUri, storageUri }: RecoverMessage,
): Promise<KeyManager> {
  if (kmsUri === '' || kmsUri.length > 8192 || storageUri.length > 8192) {
    throw new StatusError(
      'INVALID_ARGUMENT',
      'ERR_RECOVERY_REQUEST',
      'kms_uri or storage_uri is missing or too long',
    );
  }
  try {
    return await openKms(kmsUri, storageUri === '' ? 'storage://no-store' : storageUri);
  } catch (cause) {
    if (!(cause instanceof ParseError)) throw cause;
    throw new StatusError('INVALID_ARGUMENT', 'ERR_RECOVERY_REQUEST', 'the KMS URI is malformed', { cause });
  }
}

async function recover(
  { diskUuid, unlocker }: RecoveryServiceOptions,
  kms: KeyManager,
  by: Attempt,
): Promise<void> {
  const keys: Uint8Array[] = [];
  try {
    const diskKey = await kms.getDek(`key-${diskUuid}`, 32);
    keys.push(diskKey);
    const measurementSecret = await kms.getDek('key-measurementSecret', 32);
    keys.push(measurementSecret);
    await unlocker.unlock({ diskKey, measurementSecret }, by);
  } catch (cause) {
    if (cause instanceof WrongKeyError) {
      throw new StatusError(
        'INVALID_ARGUMENT',
        'ERR_RECOVERY_KEY',
        'this master secret does not open the disk of this node: it is the one of another cluster, or damaged',
        { cause },
      );
    }
    throw cause;
  } finally {
    zero(...keys);
  }
}
