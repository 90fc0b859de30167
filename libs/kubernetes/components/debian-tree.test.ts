import assert from 'node:assert/strict';
import { mkdir, readdir, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { temporaryFolder } from '@asterism/testkit/temporary-folder';
import { debianPackages, idOfPackages, makeDebian } from './debian-packages.ts';
import { useDebianTree } from './debian-tree.ts';

const root = process.getuid?.() !== 0 && 'needs root: mmdebstrap makes device files';
const PACKAGES = ['netbase'];

describe('a tree of Debian packages', () => {
  it('is made after a run that was stopped in the middle, and refreshed in place', {
    skip: root,
  }, async () => {
    await using folder = await temporaryFolder();
    const before = process.env.XDG_CACHE_HOME;
    process.env.XDG_CACHE_HOME = folder.path;
    try {
      const trees = folder.file('asterism/debian');
      const stop = new AbortController();
      const options = { signal: stop.signal, onDetail: () => {} };
      const stopped = assert.rejects(
        useDebianTree(PACKAGES, options, async () => assert.fail()),
        { code: 'ERR_PROGRAM_ABORTED' },
      );
      // mmdebstrap has begun once it has made folders in its root.
      const begun = async () => {
        for (const name of await readdir(trees).catch(() => [])) {
          if (await stat(join(trees, name, 'root/var')).catch(() => undefined)) return true;
        }
        return false;
      };
      while (!(await begun())) await delay(20);
      stop.abort();
      await stopped;
      assert.ok(!(await readFile('/proc/self/mountinfo', 'utf8')).includes(folder.path));
      const rest = (await readdir(trees)).filter((name) => !name.endsWith('.lock'));
      assert.deepEqual(rest, []);

      const again = { signal: AbortSignal.timeout(300_000), onDetail: () => {} };
      const first = await useDebianTree(PACKAGES, again, async (tree) => tree);
      assert.ok(first.packages.some(({ name, version }) => name === 'netbase' && /^\d/.test(version)));
      assert.match(await readFile(join(first.folder, 'etc/services'), 'utf8'), /^https\s/m);
      // A killed run's folder is swept; what was changed in the tree is not there after it was refreshed.
      await mkdir(`${first.folder}.work-killed`);
      await writeFile(join(first.folder, 'etc/services'), 'changed');
      const second = await useDebianTree(PACKAGES, { ...again, refresh: true }, async (tree) => tree);
      assert.match(await readFile(join(second.folder, 'etc/services'), 'utf8'), /^https\s/m);
      assert.deepEqual(
        (await readdir(trees)).filter((name) => !name.endsWith('.lock')).length,
        1,
        'one tree and nothing else',
      );
    } finally {
      if (before === undefined) delete process.env.XDG_CACHE_HOME;
      else process.env.XDG_CACHE_HOME = before;
    }
  });
});

describe('packages of a tree', () => {
  const paragraph = (name: string, version: string, status = 'install ok installed') =>
    `Package: ${name}\nStatus: ${status}\nVersion: ${version}\nArchitecture: amd64\n`;

  it('give another id when a version changes, and not when their order does', async () => {
    await using folder = await temporaryFolder();
    const id = async (...paragraphs: string[]) => {
      await mkdir(folder.file('var/lib/dpkg'), { recursive: true });
      await writeFile(folder.file('var/lib/dpkg/status'), paragraphs.join('\n'));
      return idOfPackages(await debianPackages(folder.path));
    };
    const one = await id(paragraph('a', '1'), paragraph('b', '1'));
    assert.equal(await id(paragraph('b', '1'), paragraph('a', '1')), one);
    assert.notEqual(await id(paragraph('a', '1'), paragraph('b', '1+deb12u1')), one);
    assert.notEqual(await id(paragraph('a', '1')), one);
    const removed = paragraph('c', '1', 'deinstall ok config-files');
    assert.equal(await id(paragraph('a', '1'), paragraph('b', '1'), removed), one);
    await assert.rejects(id(removed), { code: 'ERR_DEBIAN_TREE' });
    await assert.rejects(id(''), { code: 'ERR_DEBIAN_TREE' });
  });
});

describe('a mirror of Debian', () => {
  for (const mirror of ['/srv/mirror', 'http://a b', 'http://x [trusted=yes]', 'deb http://x']) {
    it(`is refused where it is ${mirror}`, async () => {
      await using folder = await temporaryFolder();
      process.env.ASTERISM_DEBIAN_MIRROR = mirror;
      const limits = { epoch: '0', timeoutMs: 1000, signal: AbortSignal.timeout(1000) };
      await assert.rejects(makeDebian([], folder.path, limits), { code: 'ERR_DEBIAN_MIRROR' });
      delete process.env.ASTERISM_DEBIAN_MIRROR;
    });
  }
});
