import { concat } from '@asterism/bytes/bytes';
import { fromHex } from '@asterism/bytes/encoding';
import { luksCopies, PRIMARY_MAGIC, parseCopy, SECONDARY_MAGIC } from './luks2-header.ts';

/** Where the second copy stands in our format: behind one of the default size. */
const SECONDARY_AT = 0x4000;
/** On-disk format section 2.1: the fields in which the two copies differ, but for the salt. */
const HEADER_OFFSET_AT = 256;
const CHECKSUM_AT = 448;

/**
 * The header area with its first copy made anew from the second one, where the first was torn: a power cut or a kill
 * while it was written leaves its magic, but not its checksum. cryptsetup does the same; but here it is done before
 * the header is judged, so that there is one text for whoever reads it. Any other area is given back as it is.
 */
export async function withPrimary(headerArea: Uint8Array): Promise<Uint8Array> {
  if (!luksCopies(headerArea).primary || !(await isTorn(headerArea))) return headerArea;
  const primary = Uint8Array.from(headerArea.subarray(SECONDARY_AT, 2 * SECONDARY_AT));
  primary.set(fromHex(PRIMARY_MAGIC));
  primary.fill(0, HEADER_OFFSET_AT, HEADER_OFFSET_AT + 8);
  primary.fill(0, CHECKSUM_AT, CHECKSUM_AT + 64);
  primary.set(new Uint8Array(await crypto.subtle.digest('SHA-256', primary)), CHECKSUM_AT);
  return concat(primary, headerArea.subarray(SECONDARY_AT));
}

/** Whether the first copy does not hold, and the second one does. */
async function isTorn(headerArea: Uint8Array): Promise<boolean> {
  try {
    if ((await parseCopy(headerArea, 0, PRIMARY_MAGIC)) !== undefined) return false;
    const secondary = await parseCopy(headerArea, SECONDARY_AT, SECONDARY_MAGIC);
    return secondary?.headerSize === SECONDARY_AT;
  } catch {
    // What is wrong with it otherwise, its judge says.
    return false;
  }
}
