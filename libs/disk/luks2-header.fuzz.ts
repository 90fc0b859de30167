import { AsterismError } from '@asterism/errors/errors';
import fc from 'fast-check';
import { goodMetadata, headerArea } from './luks2-header.fixture.ts';
import { validateHeaderArea } from './luks2-header.ts';

/** Whatever the bytes, the validator answers or throws an error of ours; an accepted header has our cipher. */
export async function fuzz(runs: number): Promise<void> {
  const good = JSON.stringify(goodMetadata());
  const edits = fc.array(
    fc.record({ at: fc.nat(good.length - 1), remove: fc.nat(40), insert: fc.string({ maxLength: 20 }) }),
    { minLength: 1, maxLength: 4 },
  );
  await fc.assert(
    fc.asyncProperty(edits, async (changes) => {
      let json = good;
      for (const { at, remove, insert } of changes)
        json = json.slice(0, at) + insert + json.slice(at + remove);
      await answersOrRefuses(headerArea(json.slice(0, 12_000)));
    }),
    { numRuns: runs },
  );
  await fc.assert(
    fc.asyncProperty(fc.uint8Array({ maxLength: 9000 }), (bytes) => answersOrRefuses(bytes)),
    { numRuns: runs },
  );
  const whole = headerArea(good);
  await fc.assert(
    fc.asyncProperty(fc.nat(0x7fff), fc.integer({ min: 1, max: 255 }), async (at, flip) => {
      const bytes = Uint8Array.from(whole);
      bytes[at]! ^= flip;
      await answersOrRefuses(bytes);
    }),
    { numRuns: runs },
  );
}

async function answersOrRefuses(bytes: Uint8Array): Promise<void> {
  try {
    const header = await validateHeaderArea(bytes, false);
    if (header.integrity || header.keyslots.length === 0)
      throw new Error('accepted a header that it must refuse');
  } catch (error) {
    if (!(error instanceof AsterismError)) throw error;
  }
}
