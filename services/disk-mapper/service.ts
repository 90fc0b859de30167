import { zero } from '@asterism/bytes/bytes';
import { ParseError } from '@asterism/errors/errors';
import type { KeyManager } from '@asterism/kms/types';
import type { API } from '@asterism/rpc/gen/recover_pb';
import type { Handlers } from '@asterism/rpc/handlers';
import { StatusError } from '@asterism/rpc/status';
import { AttemptLimiter, type AttemptLimits } from '@asterism/runtime/attempt-limiter';
import { type Unlocker, WrongKeyError } from './unlock.ts';

export interface RecoveryServiceOptions {
  /** LUKS2 UUID in lower case. */
  readonly diskUuid: string;
  readonly openKms: (kmsUri: string, storageUri: string) => Promise<KeyManager>;
  readonly unlocker: Unlocker;
  readonly limits?: Partial<AttemptLimits>;
  readonly log: { info(fields: object, message: string): void };
  /** The node is a member again; the answer is about to leave. */
  readonly onRecovered: () => void;
}

const LIMITS: AttemptLimits = { freeAttempts: 9, firstWaitMs: 10_000, maxWaitMs: 300_000 };

/** recoverproto.API: who has the master secret brings a rebooted control plane back. It answers OK only after the proof. */
export function recoveryService(options: RecoveryServiceOptions): Handlers<typeof API> {
  const limiter = new AttemptLimiter({ ...LIMITS, ...options.limits });
  let busy = false;
  return {
    async recover(request) {
      if (limiter.waitMs > 0) {
        throw new StatusError(
          'RESOURCE_EXHAUSTED',
          'ERR_RECOVERY_THROTTLED',
          `too many wrong attempts: try again in ${Math.ceil(limiter.waitMs / 1000)} s`,
        );
      }
      if (busy)
        throw new StatusError('FAILED_PRECONDITION', 'ERR_RECOVERY_BUSY', 'another recovery is under way');
      busy = true;
      try {
        await recover(options, request.kmsUri, request.storageUri);
        limiter.succeeded();
      } catch (error) {
        if (error instanceof StatusError && error.status === 'INVALID_ARGUMENT') limiter.failed();
        options.log.info({ err: error }, 'a recovery was refused');
        throw error;
      } finally {
        busy = false;
      }
      options.onRecovered();
      return {};
    },
  };
}

async function recover(options: RecoveryServiceOptions, kmsUri: string, storageUri: string): Promise<void> {
  if (kmsUri === '' || kmsUri.length > 8192 || storageUri.length > 8192) {
    throw new StatusError(
      'INVALID_ARGUMENT',
      'ERR_RECOVERY_REQUEST',
      'kms_uri or storage_uri is missing or too long',
    );
  }
  let kms: KeyManager;
  try {
    kms = await options.openKms(kmsUri, storageUri === '' ? 'storage://no-store' : storageUri);
  } catch (cause) {
    if (!(cause instanceof ParseError)) throw cause;
    throw new StatusError('INVALID_ARGUMENT', 'ERR_RECOVERY_REQUEST', 'the KMS URI is malformed', { cause });
  }
  const keys: Uint8Array[] = [];
  try {
    const diskKey = await kms.getDek(`key-${options.diskUuid}`, 32);
    keys.push(diskKey);
    const measurementSecret = await kms.getDek('key-measurementSecret', 32);
    keys.push(measurementSecret);
    await options.unlocker.unlock({ diskKey, measurementSecret });
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
    await kms.close();
  }
}
