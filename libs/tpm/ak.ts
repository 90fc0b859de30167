import { AsterismError } from '@asterism/errors/errors';
import { AK_HANDLE, Handle } from './constants.ts';
import { TpmError } from './response-code.ts';
import { parsePublicArea } from './structures.ts';
import { type AkType, akTemplate, isOfTemplate } from './template.ts';
import type { Tpm } from './tpm.ts';

/** TPM_RC_NV_DEFINED: the handle is taken. */
const NV_DEFINED = 0x14c;

/**
 * The machine's attestation key, made on first use and kept at {@link AK_HANDLE}. It comes from the owner seed, so
 * it is the same after every boot of this TPM.
 *
 * @returns encoded TPMT_PUBLIC
 * @throws AsterismError ERR_TPM_AK something else lives at the handle
 */
export async function provideAk(tpm: Tpm, type: AkType): Promise<Uint8Array> {
  const existing = (await readAk(tpm)) ?? (await makeAk(tpm, type));
  if (isOfTemplate(parsePublicArea(existing), akTemplate(type))) return existing;
  throw new AsterismError(
    'ERR_TPM_AK',
    `the object at TPM handle 0x${AK_HANDLE.toString(16)} is no ${type} attestation key; remove it (tpm2_evictcontrol) or choose its type`,
  );
}

async function readAk(tpm: Tpm): Promise<Uint8Array | undefined> {
  try {
    return await tpm.readPublic(AK_HANDLE);
  } catch (error) {
    if (error instanceof TpmError && error.isNoSuchHandle) return undefined;
    throw error;
  }
}

async function makeAk(tpm: Tpm, type: AkType): Promise<Uint8Array> {
  const transient = await tpm.createPrimary(Handle.OWNER, akTemplate(type));
  try {
    await tpm.evictControl(transient, AK_HANDLE);
  } catch (error) {
    // Behind a resource manager another process may have been quicker; whatever lives there now is judged.
    if (!(error instanceof TpmError && error.responseCode === NV_DEFINED)) throw error;
  } finally {
    await tpm.flush(transient);
  }
  return await tpm.readPublic(AK_HANDLE);
}
