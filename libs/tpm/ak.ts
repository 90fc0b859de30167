import { AsterismError } from '@asterism/errors/errors';
import { AK_HANDLE, Handle } from './constants.ts';
import { TpmError } from './response-code.ts';
import { parsePublicArea } from './structures.ts';
import { type AkType, akTemplate, isOfTemplate } from './template.ts';
import type { Tpm } from './tpm.ts';

/**
 * The machine's attestation key, made on first use and kept at {@link AK_HANDLE}. It comes from the owner seed, so
 * it is the same after every boot of this TPM.
 *
 * @returns encoded TPMT_PUBLIC
 * @throws AsterismError ERR_TPM_AK something else lives at the handle
 */
export async function provideAk(tpm: Tpm, type: AkType): Promise<Uint8Array> {
  const existing = await tpm.readPublic(AK_HANDLE).catch((error: unknown) => {
    if (error instanceof TpmError && error.isNoSuchHandle) return undefined;
    throw error;
  });
  if (existing !== undefined) {
    if (isOfTemplate(parsePublicArea(existing), akTemplate(type))) return existing;
    throw new AsterismError(
      'ERR_TPM_AK',
      `the object at TPM handle 0x${AK_HANDLE.toString(16)} is no ${type} attestation key; remove it (tpm2_evictcontrol) or choose its type`,
    );
  }
  const transient = await tpm.createPrimary(Handle.OWNER, akTemplate(type));
  try {
    await tpm.evictControl(transient, AK_HANDLE);
    return await tpm.readPublic(AK_HANDLE);
  } finally {
    await tpm.flush(transient);
  }
}
