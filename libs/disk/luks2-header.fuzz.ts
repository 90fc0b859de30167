import { toUtf8 } from '@asterism/bytes/encoding';
import { AsterismError, ParseError } from '@asterism/errors/errors';
import { goodMetadata, headerArea } from './luks2-header.fixture.ts';
import { validateHeaderArea } from './luks2-header.ts';
import { withPrimary } from './luks2-repair.ts';

export const name = 'disk/luks2-header';

const AREA_TEXT = 12_000;
const metadata = JSON.stringify(goodMetadata());
const torn = headerArea(metadata);
torn[5000]! ^= 1;
export const seeds = [toUtf8(metadata), headerArea(metadata), torn];

/** The bytes as a whole header, and as the metadata of one whose checksum is right. */
export async function run(input: Uint8Array): Promise<void> {
  const text = new TextDecoder().decode(input).slice(0, AREA_TEXT);
  let refused = 0;
  for (const area of [input, headerArea(text)]) {
    try {
      const header = await validateHeaderArea(await withPrimary(area), false);
      if (header.integrity || header.keyslots.length === 0)
        throw new Error('accepted a header that it must refuse');
    } catch (error) {
      if (!(error instanceof AsterismError)) throw error;
      refused++;
    }
  }
  if (refused === 2) throw new ParseError('neither is a header');
}
