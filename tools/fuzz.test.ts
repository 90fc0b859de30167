import assert from 'node:assert/strict';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { ParseError } from '@asterism/errors/errors';
import { FuzzFinding, type FuzzTarget, fuzz } from '@asterism/testkit/fuzz';
import { fuzzTargets } from './fuzz-targets.ts';

describe('fuzzer', () => {
  const seeds = [Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8)];

  it('finds a length that is trusted, and shows the input', async () => {
    const target: FuzzTarget = {
      name: 'trusting',
      seeds,
      run(input) {
        if (input.length < 2 || input[0] !== 1) throw new ParseError('no');
        if (input[1]! > input.length) throw new RangeError('read beyond the end');
      },
    };
    await assert.rejects(fuzz(target, { seed: 1, runs: 5000 }), (error) => {
      assert.ok(error instanceof FuzzFinding && error.cause instanceof RangeError);
      assert.throws(() => target.run(error.input), RangeError);
      return true;
    });
  });

  it('makes the same inputs of the same seed, others of another', async () => {
    const inputs = async (seed: number) => {
      const seen: string[] = [];
      await fuzz({ name: 'x', seeds, run: (input) => void seen.push(String(input)) }, { seed, runs: 300 });
      return seen;
    };
    assert.deepEqual(await inputs(1), await inputs(1));
    assert.notDeepEqual(await inputs(1), await inputs(2));
    assert.ok(new Set(await inputs(1)).size > 200);
  });
});

describe('parsers, fed with 1500 mutated inputs each', async () => {
  for (const { target } of await fuzzTargets(join(import.meta.dirname, '..'))) {
    it(target.name, async () => {
      const { refused } = await fuzz(target, { seed: 1, runs: 1500 });
      assert.ok(refused < 1500, 'not even the seeds are accepted');
    });
  }
});
