import { zero } from '@asterism/bytes/bytes';
import { toHex, toUtf8 } from '@asterism/bytes/encoding';
import { KmsError } from '../../errors.ts';
import {
  type Attributes,
  CKF,
  CKF_SERIAL_SESSION,
  CKK_AES,
  CKK_GENERIC_SECRET,
  CKM_AES_KEY_WRAP,
  CKO_SECRET_KEY,
  CKR,
  CKU_USER,
} from './cryptoki.ts';
import { CallRefused } from './failures.ts';
import { bind, type RpcClient } from './rpc-client.ts';
import { HANDSHAKE } from './rpc-message.ts';
import type { ValueReader } from './rpc-values.ts';
import { findToken, refuseLastTry } from './token.ts';

const MAX_ID_BYTES = 128;
const MAX_WRAPPED_BYTES = 256;
const KEK_BYTES = 32n;

/** A key in an HSM, and how to be let to it. */
export interface KeyInHsm {
  readonly tokenLabel: string;
  readonly pin: string;
  /** CKA_LABEL. */
  readonly keyName: string;
}

/** An object that lives as long as the session, and that the session can read. */
const SESSION_KEY = {
  CKA_CLASS: CKO_SECRET_KEY,
  CKA_KEY_TYPE: CKK_GENERIC_SECRET,
  CKA_TOKEN: false,
  CKA_PRIVATE: true,
  CKA_SENSITIVE: false,
  CKA_EXTRACTABLE: true,
} as const satisfies Attributes;

/** A user's session with a token, in which the key was found and is fit for use. */
export class HsmSession {
  readonly #client: RpcClient;
  readonly #session: bigint;
  readonly #key: bigint;
  /** Serial number of the token, label and CKA_ID of the key. */
  readonly keyId: string;

  private constructor(client: RpcClient, session: bigint, key: bigint, keyId: string) {
    this.#client = client;
    this.#session = session;
    this.#key = key;
    this.keyId = keyId;
  }

  get usable(): boolean {
    return this.#client.usable;
  }

  /**
   * @throws KmsError ERR_KMS_KEY_NOT_FOUND no such token or key; ERR_KMS_SETTINGS two of that name, or a key that is not
   *   fit for it; ERR_KMS_CREDENTIALS the PIN is locked, or one try is left
   * @throws CallRefused | as {@link RpcClient.call}
   */
  static async open(client: RpcClient, wanted: KeyInHsm, signal: AbortSignal): Promise<HsmSession> {
    const call = bind(client, signal);
    await call('C_Initialize', (out) => out.bytes(HANDSHAKE).byte(0).bytes(Uint8Array.of(0)), nothing);
    const token = await findToken(client, wanted.tokenLabel, signal);
    refuseLastTry(token, client.where);
    const session = await call(
      'C_OpenSession',
      (out) => out.ulong(token.slot).ulong(CKF_SERIAL_SESSION),
      handle,
    );
    if (token.flags & CKF.LOGIN_REQUIRED) await logIn(client, session, wanted.pin, signal);
    const key = await findKey(client, session, wanted, signal);
    const attributes = await call(
      'C_GetAttributeValue',
      (out) =>
        out.ulong(session).ulong(key).attributeRoom({
          CKA_KEY_TYPE: 8,
          CKA_VALUE_LEN: 8,
          CKA_ID: MAX_ID_BYTES,
          CKA_SENSITIVE: 1,
          CKA_EXTRACTABLE: 1,
          CKA_WRAP: 1,
          CKA_UNWRAP: 1,
        }),
      readAttributes,
    );
    validate(attributes, `the key ${wanted.keyName} at ${client.where}`);
    const id = attributes.CKA_ID === undefined ? '' : toHex(attributes.CKA_ID);
    return new HsmSession(client, session, key, `${token.serial}/${wanted.keyName}/${id === '' ? '-' : id}`);
  }

  /** @param value bytes of a key; a multiple of 8, at least 16 */
  async wrap(value: Uint8Array, signal: AbortSignal): Promise<Uint8Array> {
    const call = bind(this.#client, signal);
    const object = await call(
      'C_CreateObject',
      (out) => out.ulong(this.#session).attributes({ ...SESSION_KEY, CKA_VALUE: value }),
      handle,
    );
    return this.#thenDestroy(object, signal, () =>
      call(
        'C_WrapKey',
        (out) =>
          out
            .ulong(this.#session)
            .mechanism(CKM_AES_KEY_WRAP)
            .ulong(this.#key)
            .ulong(object)
            .byteRoom(MAX_WRAPPED_BYTES),
        (values) => values.bytes().slice(),
      ),
    );
  }

  /** @returns what was wrapped, of that length; the caller zeroes it */
  async unwrap(wrapped: Uint8Array, length: number, signal: AbortSignal): Promise<Uint8Array | undefined> {
    const call = bind(this.#client, signal);
    const object = await call(
      'C_UnwrapKey',
      (out) =>
        out
          .ulong(this.#session)
          .mechanism(CKM_AES_KEY_WRAP)
          .ulong(this.#key)
          .bytes(wrapped)
          .attributes(SESSION_KEY),
      handle,
    );
    return this.#thenDestroy(object, signal, () =>
      call(
        'C_GetAttributeValue',
        (out) => out.ulong(this.#session).ulong(object).attributeRoom({ CKA_VALUE: length }),
        (values) => {
          const { CKA_VALUE } = values.attributes();
          values.ulong();
          return CKA_VALUE?.slice();
        },
      ),
    );
  }

  /** Asks whether the key is still there and fit for use. */
  async check(signal: AbortSignal): Promise<void> {
    await bind(this.#client, signal)(
      'C_GetAttributeValue',
      (out) => out.ulong(this.#session).ulong(this.#key).attributeRoom({ CKA_KEY_TYPE: 8 }),
      readAttributes,
    );
  }

  close(): void {
    this.#client.close();
  }

  /** A plaintext key does not stay in the HSM: where it cannot be removed, the session is ended. */
  async #thenDestroy<T>(object: bigint, signal: AbortSignal, work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } finally {
      await bind(this.#client, signal)(
        'C_DestroyObject',
        (out) => out.ulong(this.#session).ulong(object),
        nothing,
      ).catch(() => this.close());
    }
  }
}

const nothing = () => {};
const handle = (values: ValueReader) => values.ulong();

/** Of C_GetAttributeValue: what an object does not tell is not there, and the return value says no more. */
function readAttributes(values: ValueReader): Attributes {
  const attributes = values.attributes();
  values.ulong();
  return { ...attributes, ...(attributes.CKA_ID && { CKA_ID: attributes.CKA_ID.slice() }) };
}

async function logIn(client: RpcClient, session: bigint, pin: string, signal: AbortSignal): Promise<void> {
  const bytes = toUtf8(pin);
  try {
    await bind(client, signal)('C_Login', (out) => out.ulong(session).ulong(CKU_USER).bytes(bytes), nothing);
  } catch (error) {
    if (!(error instanceof CallRefused && error.value === CKR.USER_ALREADY_LOGGED_IN)) throw error;
  } finally {
    zero(bytes);
  }
}

async function findKey(
  client: RpcClient,
  session: bigint,
  { keyName, tokenLabel }: KeyInHsm,
  signal: AbortSignal,
): Promise<bigint> {
  const call = bind(client, signal);
  const template = { CKA_CLASS: CKO_SECRET_KEY, CKA_TOKEN: true, CKA_LABEL: toUtf8(keyName) };
  await call('C_FindObjectsInit', (out) => out.ulong(session).attributes(template), nothing);
  const [key, another] = await call(
    'C_FindObjects',
    (out) => out.ulong(session).ulongRoom(2),
    (values) => values.ulongs(),
  );
  await call('C_FindObjectsFinal', (out) => out.ulong(session), nothing);
  if (key === undefined)
    throw new KmsError(
      'ERR_KMS_KEY_NOT_FOUND',
      `the token ${tokenLabel} at ${client.where} has no secret key with the label ${keyName}; check keyName, or make it`,
    );
  if (another !== undefined)
    throw new KmsError(
      'ERR_KMS_SETTINGS',
      `the token ${tokenLabel} at ${client.where} has several secret keys with the label ${keyName}; give each its own`,
    );
  return key;
}

/** @throws KmsError ERR_KMS_SETTINGS */
function validate(key: Attributes, what: string): void {
  const refuse = (why: string) => new KmsError('ERR_KMS_SETTINGS', `${what} ${why}`);
  if (key.CKA_KEY_TYPE !== CKK_AES || key.CKA_VALUE_LEN !== KEK_BYTES)
    throw refuse('is no AES key of 256 bits; make one');
  if (key.CKA_EXTRACTABLE !== false)
    throw refuse(
      'can leave the HSM (CKA_EXTRACTABLE), so it may have copies elsewhere; make one that cannot',
    );
  if (key.CKA_SENSITIVE !== true)
    throw refuse('can be read in plaintext (not CKA_SENSITIVE); make one that cannot');
  if (key.CKA_WRAP !== true || key.CKA_UNWRAP !== true)
    throw refuse('does not wrap and unwrap (CKA_WRAP, CKA_UNWRAP); make one that does');
}
