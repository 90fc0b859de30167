import assert from 'node:assert/strict';
import { equal } from '@asterism/bytes/bytes';
import { fromHex } from '@asterism/bytes/encoding';
import { ParseError } from '@asterism/errors/errors';
import { encodePublicArea, parsePublicArea, parseQuoteAttest, parseSignature } from './structures.ts';

export const name = 'tpm/structures';

const E = 'ab'.repeat(32);

/** Public area (ECC, RSA), quote, signature (ECDSA, RSASSA). */
export const seeds = [
  `0023000b00050472000000100018000b000300100020${E}0020${E}`,
  `0001000b00050472000000100014000b0800000000000100${'cd'.repeat(256)}`,
  `ff54434780180022000b${E}0020${E}00000000000003e80000000100000002012020031200120400000001000b03ffffff0020${E}`,
  `0018000b0020${E}0020${E}`,
  `0014000b0100${'cd'.repeat(256)}`,
].map(fromHex);

export function run(input: Uint8Array): void {
  const refusals: ParseError[] = [];
  const attempt = (parse: () => void) => {
    try {
      parse();
    } catch (error) {
      if (!(error instanceof ParseError)) throw error;
      refusals.push(error);
    }
  };
  attempt(() => {
    const area = parsePublicArea(input);
    const again = encodePublicArea(area);
    // One form only is printed of the exponent, which may be written as 0 or as 65537.
    if (area.key.type === 'ecc') assert.ok(equal(again, input));
    assert.deepEqual(parsePublicArea(again), area);
  });
  attempt(() => {
    const quote = parseQuoteAttest(input);
    for (const { pcrs } of quote.selections) for (const pcr of pcrs) assert.ok(pcr >= 0 && pcr < 32);
  });
  attempt(() => void parseSignature(input));
  if (refusals.length === 3) throw refusals[0];
}
