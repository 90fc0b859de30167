import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { it } from 'node:test';
import { temporaryFolder } from '@asterism/testkit/temporary-folder';
import { linkedModules } from './build-info.ts';

const MAGIC = '\xff Go buildinf:';

it('takes the module that stands in for another', async () => {
  await using folder = await temporaryFolder();
  const modules = `mod\tm\t(devel)\t\ndep\ta\tv1\th1:x\ndep\tb\tv1\n=>\tc\tv2\th1:y\nbuild\tx=y\n`;
  const text = Buffer.from(`${'s'.repeat(16)}${modules}${'e'.repeat(16)}`);
  const strings = [
    Buffer.from([2]),
    Buffer.from('go'),
    Buffer.from([(text.length & 0x7f) | 0x80, text.length >> 7]),
    text,
  ];
  const header = Buffer.concat([Buffer.from(MAGIC, 'latin1'), Buffer.from([8, 2]), Buffer.alloc(16)]);
  await writeFile(folder.file('x'), Buffer.concat([Buffer.alloc(48), header, ...strings]));
  assert.deepEqual(await linkedModules(folder.file('x')), [
    { path: 'a', version: 'v1' },
    { path: 'c', version: 'v2' },
  ]);
});

for (const [what, content] of [
  ['nothing in it', ''],
  ['the magic bytes at its end', `${' '.repeat(16)}${MAGIC}`],
  ['lengths without end', `${MAGIC}\x08\x02${' '.repeat(16)}${'\xff'.repeat(64)}`],
  ['a length beyond its end', `${MAGIC}\x08\x02${' '.repeat(16)}\x02go\xff\x7f${' '.repeat(64)}`],
] as const) {
  it(`refuses a file with ${what}`, async () => {
    await using folder = await temporaryFolder();
    await writeFile(folder.file('x'), content, 'latin1');
    await assert.rejects(linkedModules(folder.file('x')), { code: 'ERR_BUILD_INFO' });
  });
}
