import { KmsError } from '../../errors.ts';
import { CKF, CKR } from './cryptoki.ts';
import { CallRefused } from './failures.ts';
import { bind, type RpcClient } from './rpc-client.ts';
import type { ValueReader } from './rpc-values.ts';

const MAX_SLOTS = 64;

/** A token in a slot of the HSM. */
export interface Token {
  readonly slot: bigint;
  readonly label: string;
  readonly serial: string;
  /** CKF_... */
  readonly flags: bigint;
}

/**
 * The token of that label.
 * @throws KmsError ERR_KMS_KEY_NOT_FOUND there is none; ERR_KMS_SETTINGS there are several
 * @throws CallRefused | as {@link RpcClient.call}
 */
export async function findToken(client: RpcClient, label: string, signal: AbortSignal): Promise<Token> {
  const call = bind(client, signal);
  const slots = await call(
    'C_GetSlotList',
    (out) => out.byte(1).ulongRoom(MAX_SLOTS),
    (values) => values.ulongs(),
  );
  const found: Token[] = [];
  for (const slot of slots) {
    try {
      const token = await call(
        'C_GetTokenInfo',
        (out) => out.ulong(slot),
        (values) => tokenInfo(slot, values),
      );
      if (token.label === label) found.push(token);
    } catch (error) {
      const gone: readonly number[] = [CKR.TOKEN_NOT_PRESENT, CKR.TOKEN_NOT_RECOGNIZED, CKR.SLOT_ID_INVALID];
      if (!(error instanceof CallRefused && gone.includes(error.value))) throw error;
    }
  }
  const [token, another] = found;
  if (token === undefined)
    throw new KmsError(
      'ERR_KMS_KEY_NOT_FOUND',
      `the HSM at ${client.where} has no token with the label ${label}; check tokenLabel, and whether it is plugged in`,
    );
  if (another !== undefined)
    throw new KmsError(
      'ERR_KMS_SETTINGS',
      `the HSM at ${client.where} has ${found.length} tokens with the label ${label}; give them different ones`,
    );
  return token;
}

/** CK_TOKEN_INFO. */
function tokenInfo(slot: bigint, values: ValueReader): Token {
  const label = values.spaceString(32);
  values.spaceString(32);
  values.spaceString(16);
  const serial = values.spaceString(16);
  const flags = values.ulong();
  for (let i = 0; i < 10; i++) values.ulong();
  values.version();
  values.version();
  values.spaceString(16);
  return { slot, label, serial: serial.replaceAll(/[^\x21-\x7e]/g, '?'), flags };
}

/**
 * The last try is a person's: if our PIN is wrong, it would lock the token.
 * @throws KmsError ERR_KMS_CREDENTIALS
 */
export function refuseLastTry({ flags, label }: Token, where: string): void {
  const refuse = (why: string) =>
    new KmsError('ERR_KMS_CREDENTIALS', `the user PIN of the token ${label} at ${where} ${why}`);
  if (flags & CKF.USER_PIN_LOCKED) throw refuse('is locked; the security officer must set a new one');
  if (flags & CKF.USER_PIN_FINAL_TRY)
    throw refuse(
      'has one try left, which is not ours; log in once with a tool of the HSM, which resets the count',
    );
}
