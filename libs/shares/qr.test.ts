import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { test } from 'node:test';
import { qrForTerminal, qrModules, qrSvg } from './qr.ts';
import { encodeShare } from './share.ts';
import { splitSecret } from './split.ts';
import { parseShareText, renderShare, shareCode } from './text.ts';
import { encodeWords } from './words.ts';

const share = async (count: number, bytes = 32) =>
  (
    await splitSecret(
      { key: new Uint8Array(bytes).fill(1), salt: new Uint8Array(bytes).fill(2) },
      new Uint8Array(32).fill(3),
      { count, threshold: 2 },
    )
  )[0]!;

/** What ZBar reads, a second implementation; undefined where it is not installed. */
function zbar(modules: readonly (readonly boolean[])[]): string | undefined {
  const scale = 4;
  const size = modules.length * scale;
  const pixels = Buffer.alloc(size * size, 255);
  for (let y = 0; y < size; y++)
    for (let x = 0; x < size; x++)
      if (modules[Math.floor(y / scale)]![Math.floor(x / scale)]) pixels[y * size + x] = 0;
  const program = `
import sys
try:
    import zbar
except ImportError:
    sys.exit(77)
size = int(sys.argv[1])
image = zbar.Image(size, size, 'Y800', sys.stdin.buffer.read())
zbar.ImageScanner().scan(image)
print([symbol.data for symbol in image][0])`;
  try {
    return execFileSync('/usr/bin/python3', ['-c', program, String(size)], {
      input: pixels,
      encoding: 'utf8',
      timeout: 30_000,
    }).trim();
  } catch (error) {
    const { status, code } = error as { status?: number; code?: string };
    if ((status !== 77 && code !== 'ENOENT') || process.env.CI !== undefined) throw error;
    return undefined;
  }
}

/** The modules that a terminal shows. */
function seen(terminal: string): boolean[][] {
  return terminal.split('\n').flatMap((line) => {
    const cells = [...line.replaceAll(/[^ █▀▄]/gu, '')];
    return [cells.map((cell) => '█▀'.includes(cell)), cells.map((cell) => '█▄'.includes(cell))];
  });
}

for (const [count, bytes] of [
  [2, 32],
  [3, 32],
  [16, 32],
  [16, 255],
] as const) {
  test(`ZBar reads the code of one of ${count} shares of ${bytes}-byte secrets`, async (t) => {
    const one = await share(count, bytes);
    const code = shareCode(one);
    const modules = qrModules(code);
    const text = zbar(modules);
    if (text === undefined) return t.skip('NOT TESTED against ZBar: install python3-zbar');
    assert.equal(text, code);
    assert.deepEqual(parseShareText(text), one);
    assert.equal(zbar(seen(qrForTerminal(code))), code);
  });
}

test('the SVG draws the same modules, and nothing else', async () => {
  const code = shareCode(await share(3));
  const modules = qrModules(code);
  const drawn = modules.map((row) => row.map(() => false));
  const svg = qrSvg(code, 'share 1 of 3');
  for (const [, x, y, length] of svg.matchAll(/M(\d+) (\d+)h(\d+)v1h-\3z/g))
    drawn[Number(y)]!.fill(true, Number(x), Number(x) + Number(length));
  assert.deepEqual(drawn, modules);
  assert.ok(!svg.includes(code));
});

test('README.md tells the number of words', async () => {
  for (const [count, words] of [
    [3, 129],
    [5, 140],
  ] as const) {
    const one = await share(count);
    assert.equal(encodeWords(encodeShare(one)).length, words);
    assert.ok(renderShare(one, 'demo').includes(`Words:       ${words}\n`));
  }
});
