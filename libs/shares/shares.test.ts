import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import { concat } from '@asterism/bytes/bytes';
import { fromBase64Url, toBase64Url, toHex } from '@asterism/bytes/encoding';
import { ParseError } from '@asterism/errors/errors';
import { wordlist } from '@scure/bip39/wordlists/english.js';
import fc from 'fast-check';
import { ShareCollection, SharesError } from './collection.ts';
import { merkleTree } from './merkle.ts';
import { encodePayload, parsePayload, type SharedSecret } from './payload.ts';
import { encodeShare, isGenuine, parseShare, type Share, splitIdOf } from './share.ts';
import { combineShares, splitSecret } from './split.ts';
import { parseShareText, renderShare, seemsWhole, shareCode } from './text.ts';
import { encodeWords } from './words.ts';

const CLUSTER = new Uint8Array(32).fill(0xc1);
const OTHER_CLUSTER = new Uint8Array(32).fill(0xc2);
const SECRET: SharedSecret = {
  key: Uint8Array.from({ length: 32 }, (_, i) => i),
  salt: Uint8Array.from({ length: 32 }, (_, i) => i + 32),
};
const LATER: SharedSecret = { ...SECRET, generation: 2, measurementSecret: new Uint8Array(32).fill(5) };

const twoOfThree = () => splitSecret(SECRET, CLUSTER, { count: 3, threshold: 2 });

/** Every choice of `k` of `items`. */
function choices<T>(items: readonly T[], k: number): T[][] {
  if (k === 0) return [[]];
  return items.flatMap((item, i) => choices(items.slice(i + 1), k - 1).map((rest) => [item, ...rest]));
}

/** Adds shares as a, b, c, ... and returns the collection and what was said of each. */
function collect(texts: readonly string[], clusterId?: Uint8Array) {
  const shares = new ShareCollection(clusterId);
  const said = texts.map((text, i) => shares.add(String.fromCharCode(97 + i), text));
  return { shares, said };
}

/** What `take` says. */
function complaint(shares: ShareCollection): string {
  try {
    shares.take();
  } catch (error) {
    assert.ok(error instanceof SharesError);
    assert.equal(error.code, 'ERR_SHARES');
    return error.message;
  }
  assert.fail('nothing was complained of');
}

/** The same words with one changed. */
function replaced(words: readonly string[], at: number, word: string): string[] {
  return words.map((old, i) => (i === at ? word : old));
}

const wordsOf = (share: Share) => encodeWords(encodeShare(share));

test('every k of n gives the secret, in any order; k - 1 are refused', async () => {
  for (let count = 2; count <= 5; count++) {
    for (let threshold = 2; threshold <= count; threshold++) {
      const shares = await splitSecret(LATER, CLUSTER, { count, threshold });
      assert.equal(shares.length, count);
      for (const some of choices(shares, threshold)) {
        assert.deepEqual(await combineShares(some), LATER);
        assert.deepEqual(await combineShares(some.reverse()), LATER);
      }
      for (const few of choices(shares, threshold - 1))
        await assert.rejects(combineShares(few), { code: 'ERR_SHARES' });
      assert.deepEqual(await combineShares(shares), LATER, 'all of them');
    }
  }
});

test('16 of 16, and secrets of any length that fits', async () => {
  const shares = await splitSecret(SECRET, CLUSTER, { count: 16, threshold: 16 });
  assert.deepEqual(await combineShares(shares), SECRET);
  await fc.assert(
    fc.asyncProperty(
      fc.record(
        {
          key: fc.uint8Array({ minLength: 16, maxLength: 255 }),
          salt: fc.uint8Array({ minLength: 32, maxLength: 255 }),
          measurementSecret: fc.uint8Array({ minLength: 32, maxLength: 32 }),
          generation: fc.integer({ min: 2, max: 1_000_000 }),
        },
        { noNullPrototype: true },
      ),
      fc.integer({ min: 2, max: 16 }),
      fc.integer({ min: 2, max: 16 }),
      async (secret, a, b) => {
        const [threshold, count] = [Math.min(a, b), Math.max(a, b)];
        const shares = await splitSecret(secret, CLUSTER, { count, threshold });
        const some = shares
          .slice(-threshold)
          .map((share, i) => parseShareText(i % 2 ? shareCode(share) : renderShare(share, 'x')));
        assert.deepEqual(await combineShares(some), secret);
        await assert.rejects(combineShares(some.slice(1)), { code: 'ERR_SHARES' });
      },
    ),
    { numRuns: 25 },
  );
});

for (const [count, threshold] of [
  [1, 1],
  [3, 1],
  [2, 3],
  [17, 2],
  [2.5, 2],
  [0, 0],
  [-3, 2],
  [Number.NaN, 2],
] as const) {
  test(`${threshold} of ${count} is refused`, async () => {
    await assert.rejects(splitSecret(SECRET, CLUSTER, { count, threshold }), { code: 'ERR_SPLIT' });
  });
}

test('what does not fit in a share is refused before it is split', async () => {
  const plan = { count: 3, threshold: 2 };
  for (const secret of [
    { ...SECRET, key: new Uint8Array(256) },
    { ...SECRET, key: new Uint8Array(15) },
    { ...SECRET, salt: new Uint8Array(31) },
    { ...SECRET, measurementSecret: new Uint8Array(31) },
  ])
    await assert.rejects(splitSecret(secret, CLUSTER, plan), { code: 'ERR_SPLIT' });
  await assert.rejects(splitSecret(SECRET, CLUSTER.subarray(1), plan), { code: 'ERR_SPLIT' });
});

// The library takes its random numbers from node:crypto; were they constant, two splits would be alike.
test('two splits of one secret have nothing in common, and no share shows a part of the secret', async () => {
  const [first, second] = await Promise.all([twoOfThree(), twoOfThree()]);
  for (const [i, { body, splitId }] of first.entries()) {
    assert.notDeepEqual(body, second[i]!.body);
    assert.notDeepEqual(splitId, second[i]!.splitId);
    const { key, salt } = SECRET;
    for (let at = 0; at + 4 <= 32; at++)
      for (const part of [key, salt]) assert.ok(!toHex(body).includes(toHex(part.subarray(at, at + 4))));
  }
  await assert.rejects(combineShares([first[0]!, second[1]!]), { code: 'ERR_SHARES' });
});

test('the binary form is what README.md says', async () => {
  const [share] = await twoOfThree();
  const bytes = encodeShare(share!);
  assert.equal(bytes.length, 3 + 32 + 4 + 3 + 16 + 2 * 16 + (1 + 1 + 32 + 1 + 32 + 1 + 8) + 1 + 4);
  const length = bytes.length.toString(16).padStart(4, '0');
  assert.equal(toHex(bytes.subarray(0, 42)), `01${length}${toHex(CLUSTER)}00000001020301`);
  assert.deepEqual(parseShare(bytes), share);
  assert.equal(wordsOf(share!).length, Math.ceil((bytes.length * 8) / 11) + 4);
});

test('a truncated or lengthened share is refused, and so is every flipped bit', async () => {
  const [share] = await twoOfThree();
  const bytes = encodeShare(share!);
  for (let length = 0; length < bytes.length; length++)
    assert.throws(() => parseShare(bytes.subarray(0, length)), ParseError);
  assert.throws(() => parseShare(concat(bytes, new Uint8Array(1))), ParseError);
  assert.throws(() => parseShare(new Uint8Array(70_000)), ParseError);
  for (let bit = 0; bit < bytes.length * 8; bit++) {
    const flipped = bytes.slice();
    flipped[bit >> 3]! ^= 1 << (bit & 7);
    assert.throws(() => parseShare(flipped), { code: 'ERR_SHARE' });
  }
});

/** Bytes of a share with any content and the right checksum. */
function sealed(start: Uint8Array): Uint8Array {
  return concat(start, createHash('sha256').update(start).digest().subarray(0, 4));
}

test('with a right checksum, any changed part is found out by the share alone', async () => {
  const [share] = await twoOfThree();
  const bytes = encodeShare(share!);
  for (let at = 3; at < bytes.length - 4; at++) {
    const start = bytes.slice(0, -4);
    start[at]! ^= 1;
    let forged: Share;
    try {
      forged = parseShare(sealed(start));
    } catch (error) {
      assert.ok(error instanceof ParseError, `byte ${at}`);
      continue;
    }
    assert.equal(isGenuine(forged), false, `byte ${at}`);
    const { shares, said } = collect([shareCode(forged), shareCode(share!)]);
    assert.match(said[0]!, /altered on purpose/);
    assert.match(complaint(shares), /1 of 2 needed\na: .*altered on purpose/);
  }
});

test('x = 0, which would be the secret itself, is refused', async () => {
  const [share] = await twoOfThree();
  const body = share!.body.slice();
  body[body.length - 1] = 0;
  assert.throws(() => parseShare(encodeShare({ ...share!, body })), /x coordinate/);
});

/** A share whose holder made a commitment of his own, so that it is genuine by itself. */
function forged(share: Share): Share {
  const bodies = Array.from({ length: share.count }, () => share.body.map((byte) => byte ^ 0x55 || 1));
  const { root, paths } = merkleTree(bodies);
  const made = { ...share, body: bodies[share.index - 1]!, path: paths[share.index - 1]! };
  return { ...made, splitId: splitIdOf(made, root) };
}

test('a forged share with a commitment of its own is named by those that agree, wherever it stands', async () => {
  const shares = await splitSecret(SECRET, CLUSTER, { count: 5, threshold: 3 });
  for (const at of [0, 1, 2]) {
    const texts = shares.slice(0, 3).map((share, i) => shareCode(i === at ? forged(share) : share));
    const { shares: few, said } = collect(texts);
    assert.deepEqual(said, [undefined, undefined, undefined], 'by itself it is in order');
    const message = complaint(few);
    const name = 'abc'[at]!;
    assert.match(message, new RegExp(`\\n${name}: is of another split, .* out of date, or forged`));
    assert.equal(message.split('\n').length, 2, 'nobody else is named');
    // A fourth share makes enough; the forged one is named still.
    assert.equal(few.add('d', shareCode(shares[3]!)), undefined);
    const { shares: taken, foreign } = few.take();
    assert.deepEqual(
      foreign.map((one) => one.name),
      [name],
    );
    assert.deepEqual(await combineShares(taken), SECRET);
  }
});

test('where two shares disagree, both are named with what they are of', async () => {
  const [honest] = await twoOfThree();
  const { shares } = collect([shareCode(forged(honest!)), shareCode(honest!)]);
  assert.match(complaint(shares), /\na: is of split [0-9a-f]{16} .*\nb: is of split [0-9a-f]{16} /);
});

test('two complete splits are ambiguous, and neither is taken', async () => {
  const texts = [...(await twoOfThree()), ...(await twoOfThree())].map(shareCode);
  const { shares } = collect(texts);
  assert.match(complaint(shares), /enough of more than one; give those of one/);
});

test('shares of another cluster, generation and split are named as what they are', async () => {
  const plan = { count: 3, threshold: 2 };
  const [own, foreign, later, outdated] = await Promise.all([
    splitSecret(SECRET, CLUSTER, { count: 4, threshold: 3 }),
    splitSecret(SECRET, OTHER_CLUSTER, plan),
    splitSecret(LATER, CLUSTER, plan),
    splitSecret(SECRET, CLUSTER, plan),
  ]);
  const texts = [own[0]!, own[1]!, foreign[0]!, later[0]!, outdated[0]!].map(shareCode);
  const { shares, said } = collect(texts, CLUSTER);
  assert.match(said[2]!, /of another cluster, c2c2c2c2c2c2c2c2; shares of c1c1c1c1c1c1c1c1 are needed/);
  const message = complaint(shares);
  assert.match(message, /2 of 3 needed/);
  assert.match(message, /\nc: is of another cluster/);
  assert.match(message, /\nd: is of generation 2 of the master secret; the others are of generation 1/);
  assert.match(message, /\ne: is of another split/);
  // Without knowing the cluster, it is told from the others.
  assert.match(
    complaint(collect(texts).shares),
    /\nc: is of another cluster, c2c2.*; the others are of c1c1/,
  );
});

test('a share given twice is named, and counts once', async () => {
  const [share] = await twoOfThree();
  const { shares, said } = collect([shareCode(share!), renderShare(share!, 'demo')]);
  assert.match(said[1]!, /is the same share as a: share 1 of 3/);
  assert.equal(shares.complete, false);
  assert.match(complaint(shares), /1 of 2 needed/);
});

test('words are taken in either case, with or without numbers, by their first four letters', async () => {
  const [share] = await twoOfThree();
  const words = wordsOf(share!);
  const file = renderShare(share!, 'demo');
  for (const text of [
    file,
    file.toUpperCase(),
    file.replaceAll('\n', '\r\n'),
    words.join(' '),
    words.map((word) => word.slice(0, 4)).join(','),
    words.map((word) => word.slice(0, 5).toUpperCase()).join('\n'),
    words.map((word, i) => `${i + 1}. ${word}`).join('\t'),
    `  ${shareCode(share!)}\n`,
  ])
    assert.deepEqual(parseShareText(text), share);
});

test('each single wrong word is named by its place', async () => {
  const [share] = await twoOfThree();
  const words = wordsOf(share!);
  for (const [at, word] of words.entries()) {
    const other = wordlist[(wordlist.indexOf(word) + 1 + at) % 2048]!;
    if (other === word) continue;
    const place = `word ${at + 1} (line ${Math.floor(at / 6) + 1}, word ${(at % 6) + 1} of it)`;
    assert.throws(() => parseShareText(replaced(words, at, other).join(' ')), {
      code: 'ERR_SHARE',
      message: `${place} is wrong; copy it once more`,
    });
  }
});

test('two or three wrong words are never taken for one', async () => {
  const words = wordsOf((await twoOfThree())[0]!);
  const place = fc.integer({ min: 0, max: words.length - 1 });
  fc.assert(
    fc.property(
      fc.uniqueArray(place, { minLength: 2, maxLength: 3 }),
      fc.integer({ min: 1, max: 2046 }),
      (places, by) => {
        let wrong = words;
        for (const at of places)
          wrong = replaced(wrong, at, wordlist[(wordlist.indexOf(wrong[at]!) + by) % 2048]!);
        assert.throws(() => parseShareText(wrong.join(' ')), /several of its words|it should have/);
      },
    ),
  );
  const swapped = replaced(replaced(words, 20, words[21]!), 21, words[20]!);
  if (words[20] !== words[21]) assert.throws(() => parseShareText(swapped.join(' ')), /several of its words/);
});

test('a missing or an additional word is told by the count', async () => {
  const words = wordsOf((await twoOfThree())[0]!);
  assert.throws(() => parseShareText(words.toSpliced(50, 1).join(' ')), {
    message: `it should have ${words.length} words; there are ${words.length - 1}`,
  });
  assert.throws(() => parseShareText(words.toSpliced(50, 0, 'zoo').join(' ')), {
    message: `it should have ${words.length} words; there are ${words.length + 1}`,
  });
});

test('an unknown word is named with its place and the nearest one', async () => {
  const words = wordsOf((await twoOfThree())[0]!);
  assert.throws(() => parseShareText(replaced(words, 7, 'abandom').join(' ')), {
    message: 'word 8 (line 2, word 2 of it), "abandom", is not in the list of words; is it "abandon"?',
  });
  assert.throws(() => parseShareText(replaced(words, 7, 'ab').join(' ')), /"ab", is not in the list/);
});

test('garbage is refused, and nothing of a secret that was taken for a share is quoted', async () => {
  const secret = toBase64Url(new Uint8Array(32).fill(0xab));
  const hex = toHex(new Uint8Array(32).fill(0xab));
  for (const text of [
    '',
    ' \n ',
    '1 2 3',
    JSON.stringify({ key: secret, salt: secret }),
    secret,
    hex,
    `AGE-SECRET-KEY-1${'Q'.repeat(58)}`,
    'abandon '.repeat(200),
    Array.from({ length: 200 }, (_, i) => wordlist[(i * 37) % 2048]).join(' '),
    'abandon '.repeat(2000),
    'zoo '.repeat(20_000),
    'x'.repeat(100_000),
    'asterism-share:',
    'asterism-share:AAAA',
    `asterism-share:${secret}!`,
    '\0'.repeat(100),
    '# zoo\n',
  ]) {
    const { said } = collect([text]);
    assert.ok(
      said[0] !== undefined && !said[0].includes(secret.slice(0, 8)) && !said[0].includes(hex.slice(0, 8)),
    );
    assert.ok(said[0].length < 300 && !said[0].includes('QQQQ'));
  }
});

test('two shares in one file are not one', async () => {
  const [a, b] = await twoOfThree();
  assert.throws(
    () => parseShareText(renderShare(a!, 'x') + renderShare(b!, 'x')),
    /it should have 129 words; there are 258/,
  );
});

test('the heading of a file decides nothing, and a hostile name of a cluster draws nothing', async () => {
  const [share] = await twoOfThree();
  const text = renderShare(share!, 'evil\x1b[2J\nzoo');
  assert.ok(!text.includes('\x1b'));
  assert.deepEqual(parseShareText(text), share);
  assert.deepEqual(parseShareText(renderShare(share!, 'x').replace('share 1 of 3', 'share 2 of 9')), share);
});

test('as it is typed, the end of a share is seen', async () => {
  const [share] = await twoOfThree();
  const lines = renderShare(share!, 'demo').trimEnd().split('\n');
  for (let end = 0; end < lines.length; end++)
    assert.equal(seemsWhole(lines.slice(0, end).join('\n')), false, `${end} lines`);
  assert.equal(seemsWhole(lines.join('\n')), true);
  assert.equal(seemsWhole(shareCode(share!)), true);
  assert.equal(seemsWhole('zoo '.repeat(500)), false);
  assert.equal(seemsWhole('{"key": "x"}'), false);
});

test('any bytes, texts and words are parsed or refused with ParseError', () => {
  const refused = (work: () => unknown) => {
    try {
      work();
    } catch (error) {
      assert.ok(error instanceof ParseError, String(error));
    }
  };
  fc.assert(fc.property(fc.uint8Array({ maxLength: 1200 }), (bytes) => refused(() => parseShare(bytes))));
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 1200 }), (bytes) => refused(() => parseShare(sealed(bytes)))),
  );
  fc.assert(
    fc.property(fc.string({ maxLength: 400, unit: 'binary' }), (text) => refused(() => parseShareText(text))),
  );
  fc.assert(
    fc.property(fc.array(fc.constantFrom(...wordlist), { maxLength: 800 }), (words) =>
      refused(() => parseShareText(words.join(' '))),
    ),
  );
  fc.assert(fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => refused(() => parsePayload(bytes, 1))));
});

test('a payload that was put together wrongly is refused and not quoted', () => {
  const payload = encodePayload(SECRET);
  assert.deepEqual(parsePayload(payload, 1), SECRET);
  for (let at = 0; at < payload.length; at++) {
    const wrong = payload.slice();
    wrong[at]! ^= 1;
    assert.throws(() => parsePayload(wrong, 1), { code: 'ERR_SHARES_PAYLOAD' });
    assert.throws(() => parsePayload(payload.subarray(0, at), 1), { code: 'ERR_SHARES_PAYLOAD' });
  }
});

test('a code is URL-safe base64 of the binary form', async () => {
  const [share] = await twoOfThree();
  assert.deepEqual(fromBase64Url(shareCode(share!).slice('asterism-share:'.length)), encodeShare(share!));
});
