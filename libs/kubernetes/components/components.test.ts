import assert from 'node:assert/strict';
import { appendFile, chmod, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { PolicyError } from '@asterism/errors/errors';
import { runChecked } from '@asterism/runtime/program';
import { writeImageArchive } from '../oci/archive.ts';
import { place } from '../oci/place.ts';
import { buildProgram } from './build-go.ts';
import { sha256OfFile } from './cache.ts';
import { DEFAULT_VERSION, NODE_PROGRAMS, RELEASES } from './catalogue.ts';
import { componentsFolder, componentsForWire, filesOf, readManifest, releaseOf } from './manifest.ts';
import { NODE_SET, PINNED_FILES, PINNED_PROGRAMS } from './pinned.ts';
import { provideComponents } from './provide.ts';
import { recipeOf } from './recipe.ts';
import { verifyComponents } from './verify.ts';

/** Has files of Debian packages in it, so that the catalogue does not pin its bytes. */
const FILE = 'images/kube-proxy.tar';
const options = { signal: AbortSignal.timeout(120_000), onDetail: () => {} };

describe('components', () => {
  let cache: string;
  const before_ = process.env.XDG_CACHE_HOME;
  before(async () => {
    cache = await mkdtemp(join(tmpdir(), 'asterism-cache-'));
    process.env.XDG_CACHE_HOME = cache;
  });
  after(async () => {
    if (before_ === undefined) delete process.env.XDG_CACHE_HOME;
    else process.env.XDG_CACHE_HOME = before_;
    await rm(cache, { recursive: true, force: true });
  });

  const entryOf = (file: string) => filesOf(releaseOf(DEFAULT_VERSION)).find((one) => one.file === file)!;

  /** A cache that looks as after a build, of which one small file is there. */
  async function builtCache(file = FILE, recorded: object = {}): Promise<void> {
    const folder = componentsFolder(DEFAULT_VERSION);
    await rm(folder, { recursive: true, force: true });
    await mkdir(dirname(join(folder, file)), { recursive: true });
    await writeFile(join(folder, file), 'something');
    const { programs: _programs, packages: _packages, ...entry } = entryOf(file);
    const hash = `sha256:${await sha256OfFile(join(folder, file))}`;
    const component = { ...entry, hash, size: 9, source: 'a test', ...recorded };
    const recipe = await recipeOf(releaseOf(DEFAULT_VERSION));
    await writeFile(
      join(folder, 'components.json'),
      JSON.stringify({ version: DEFAULT_VERSION, recipe, components: [component] }),
    );
  }

  it('refuses a version that is not in the catalogue, and names those that are', async () => {
    await assert.rejects(provideComponents('v1.2.3', options), {
      code: 'ERR_KUBERNETES_VERSION',
      message: /v1\.37\.2/,
    });
    await assert.rejects(verifyComponents('../../etc'), { code: 'ERR_KUBERNETES_VERSION' });
  });

  const checkOf = async (file: string) =>
    (await verifyComponents(DEFAULT_VERSION)).find(({ name }) => name === entryOf(file).name);

  it('says that nothing is built, and lists what was changed or is gone', async () => {
    const outcome = async () => (await checkOf(FILE))?.outcome;
    assert.equal((await verifyComponents(DEFAULT_VERSION))[0]?.outcome, 'missing');
    await builtCache();
    assert.equal(await outcome(), 'passed');
    await appendFile(join(componentsFolder(DEFAULT_VERSION), FILE), '!');
    assert.equal(await outcome(), 'failed');
    await rm(join(componentsFolder(DEFAULT_VERSION), FILE));
    assert.equal(await outcome(), 'missing');
  });

  it('tells a program that was changed together with the record of it', async () => {
    for (const file of ['bin/kubelet', 'images/kube-apiserver.tar', 'cni-plugins.tar.gz']) {
      await builtCache(file);
      const check = await checkOf(file);
      assert.equal(check?.outcome, 'failed', file);
      assert.match(check?.detail ?? '', /the catalogue pins sha256:/);
    }
  });

  it('tells a record that says other than the catalogue, lacks a file, or has one more', async () => {
    await builtCache(FILE, { installPath: '/usr/bin/kubelet' });
    assert.match((await checkOf(FILE))?.detail ?? '', /installPath \/usr\/bin\/kubelet, the catalogue says/);
    await builtCache(FILE, { extract: true });
    assert.equal((await checkOf(FILE))?.outcome, 'failed');
    assert.equal((await checkOf('bin/kubelet'))?.outcome, 'missing');
    await builtCache(FILE, { file: '../../other' });
    assert.equal((await checkOf(FILE))?.outcome, 'missing');
    assert.equal((await verifyComponents(DEFAULT_VERSION)).at(-1)?.outcome, 'failed');
  });

  it('downloads nothing whose published hash is not pinned, and says of what', async () => {
    await assert.rejects(provideComponents(DEFAULT_VERSION, { ...options, official: 'only' }), (error) => {
      assert.ok(error instanceof PolicyError);
      assert.equal(error.code, 'ERR_NO_OFFICIAL_HASH');
      for (const name of ['kubeadm', 'kubelet', 'kube-apiserver'])
        assert.match(error.message, new RegExp(name));
      return true;
    });
  });

  it('gives nodes addresses by hash', async () => {
    await builtCache();
    const [wire] = componentsForWire((await readManifest(DEFAULT_VERSION))!, 'http://10.77.1.1:8080');
    assert.equal(wire?.url, `http://10.77.1.1:8080/components/${wire?.hash.slice(7)}`);
    assert.equal(wire?.installPath, '/run/state/images/kube-proxy.tar');
  });

  it('builds nothing from a module that is not pinned', async () => {
    const program = { name: 'x', module: 'cni-plugins', package: 'example.com/not/pinned' };
    const real = before_ === undefined ? join(process.env.HOME ?? '/root', '.cache') : before_;
    process.env.XDG_CACHE_HOME = real;
    try {
      await assert.rejects(buildProgram(program, join(cache, 'bin'), options), {
        code: 'ERR_PROGRAM_FAILED',
      });
    } finally {
      process.env.XDG_CACHE_HOME = cache;
    }
  });

  for (const release of RELEASES) {
    it(`pins every module of ${release.version}`, async () => {
      for (const { module, package: name } of release.programs) {
        const folder = join(import.meta.dirname, 'modules', module);
        const required = /^require /m.test(await readFile(join(folder, 'go.mod'), 'utf8'));
        const sums = await readFile(join(folder, 'go.sum'), 'utf8');
        assert.equal(sums.split('\n').length > 10, required, `${module} for ${name}`);
      }
      const programs = new Set(release.programs.map((program) => program.name));
      for (const image of release.images) {
        for (const program of Object.values(image.programs))
          assert.ok(programs.has(program), `${image.name} needs ${program}`);
      }
    });
  }
});

describe('pins', () => {
  it('are there for every program and for every file that is made of nothing else', () => {
    for (const release of RELEASES) {
      for (const { name } of release.programs) {
        assert.match(PINNED_PROGRAMS[release.version]?.[name] ?? '', /^[0-9a-f]{64}$/, name);
      }
      const files = release.images.filter((image) => image.packages === undefined);
      for (const file of [...files.map((image) => `images/${image.name}.tar`), 'cni-plugins.tar.gz']) {
        assert.match(PINNED_FILES[release.version]?.[file] ?? '', /^[0-9a-f]{64}$/, file);
      }
    }
    for (const { name } of NODE_PROGRAMS)
      assert.match(PINNED_PROGRAMS[NODE_SET]?.[name] ?? '', /^[0-9a-f]{64}$/);
  });
});

describe('image archives', () => {
  it('are the same bytes for the same files, whatever their times and owners and the umask', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'asterism-oci-'));
    const make = async (name: string, time: string, umask: number) => {
      const before = process.umask(umask);
      try {
        const root = join(folder, name);
        await mkdir(root);
        for (const file of ['b', 'a']) {
          await place(root, `usr/bin/${file}`, 0o755, (to) => writeFile(to, file));
        }
        await runChecked('touch', ['-d', time, join(root, 'usr/bin/a')], { timeoutMs: 5000 });
        const to = join(folder, `${name}.tar`);
        await writeImageArchive(root, { reference: 'example.local/x:1', entrypoint: ['/usr/bin/a'] }, to);
        return sha256OfFile(to);
      } finally {
        process.umask(before);
      }
    };
    const one = await make('one', '2001-01-01', 0o022);
    for (const [name, umask] of [
      ['two', 0o077],
      ['three', 0],
    ] as const) {
      assert.equal(await make(name, '2020-02-02', umask), one, name);
    }
    const listed = await runChecked('tar', ['-xOf', join(folder, 'one.tar'), './manifest.json'], {
      timeoutMs: 5000,
    });
    const [manifest] = JSON.parse(listed);
    assert.deepEqual(manifest.RepoTags, ['example.local/x:1']);
    await runChecked('tar', ['-xf', join(folder, 'one.tar'), '-C', folder], { timeoutMs: 5000 });
    assert.equal(`${await sha256OfFile(join(folder, manifest.Layers[0]))}.tar`, manifest.Layers[0]);
    assert.equal(`${await sha256OfFile(join(folder, manifest.Config))}.json`, manifest.Config);
    await rm(folder, { recursive: true, force: true });
  });

  it('keep the modes that files of Debian packages have', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'asterism-oci-'));
    await mkdir(join(folder, 'root/tmp'), { recursive: true });
    await chmod(join(folder, 'root/tmp'), 0o1777);
    await writeImageArchive(join(folder, 'root'), { reference: 'example.local/x:1' }, join(folder, 'x.tar'));
    await runChecked('tar', ['-xf', join(folder, 'x.tar'), '-C', folder], { timeoutMs: 5000 });
    const [{ Layers }] = JSON.parse(await readFile(join(folder, 'manifest.json'), 'utf8'));
    const listed = await runChecked('tar', ['-tvf', join(folder, Layers[0])], { timeoutMs: 5000 });
    assert.match(listed, /^drwxrwxrwt .* \.\/tmp\/$/m);
    await rm(folder, { recursive: true, force: true });
  });
});
