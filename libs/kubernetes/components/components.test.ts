import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { appendFile, mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { PolicyError } from '@asterism/errors/errors';
import { runChecked } from '@asterism/runtime/program';
import { writeImageArchive } from '../oci/archive.ts';
import { buildProgram } from './build-go.ts';
import { sha256OfFile, withLock } from './cache.ts';
import { DEFAULT_VERSION, NODE_PROGRAMS, RELEASES } from './catalogue.ts';
import { NODE_SET, PINNED_FILES, PINNED_PROGRAMS } from './pinned.ts';
import {
  componentsFolder,
  componentsForWire,
  provideComponents,
  readManifest,
  releaseOf,
} from './provide.ts';
import { prepareFolder, recipeOf } from './recipe.ts';
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

  /** A cache that looks as after a build, with one small file. */
  async function builtCache(file = FILE): Promise<void> {
    const folder = componentsFolder(DEFAULT_VERSION);
    await rm(folder, { recursive: true, force: true });
    await mkdir(dirname(join(folder, file)), { recursive: true });
    await writeFile(join(folder, file), 'something');
    const entry = {
      name: 'one',
      file,
      hash: `sha256:${await sha256OfFile(join(folder, file))}`,
      size: 9,
      installPath: '/run/state/images/one.tar',
      extract: false,
      source: 'a test',
    };
    const recipe = await recipeOf(releaseOf(DEFAULT_VERSION));
    await writeFile(
      join(folder, 'components.json'),
      JSON.stringify({ version: DEFAULT_VERSION, recipe, components: [entry] }),
    );
  }

  it('refuses a version that is not in the catalogue, and names those that are', async () => {
    await assert.rejects(provideComponents('v1.2.3', options), {
      code: 'ERR_KUBERNETES_VERSION',
      message: /v1\.37\.2/,
    });
    await assert.rejects(verifyComponents('../../etc'), { code: 'ERR_KUBERNETES_VERSION' });
  });

  it('says that nothing is built, and lists what was changed or is gone', async () => {
    const outcome = async () => (await verifyComponents(DEFAULT_VERSION))[0]?.outcome;
    assert.equal(await outcome(), 'missing');
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
      const [check] = await verifyComponents(DEFAULT_VERSION);
      assert.equal(check?.outcome, 'failed', file);
      assert.match(check?.detail ?? '', /the catalogue pins sha256:/);
    }
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

  it('goes on with pinned programs alone after the recipe has changed or a build was killed', async () => {
    const folder = join(cache, 'set');
    const bin = join(folder, 'bin');
    await mkdir(join(bin, '.fresh'), { recursive: true });
    await mkdir(join(folder, 'images/.image-x'), { recursive: true });
    for (const name of ['good', 'other', 'unknown']) await writeFile(join(bin, name), name);
    await symlink('/etc/passwd', join(bin, 'link'));
    await writeFile(join(folder, 'components.json'), '{}');
    const good = await sha256OfFile(join(bin, 'good'));
    const known = (name: string) => [{ good, other: good }[name], undefined];
    await prepareFolder(folder, 'new', known);
    assert.deepEqual(await readdir(bin), ['good']);
    assert.deepEqual((await readdir(folder)).sort(), ['bin', 'recipe']);
    await writeFile(join(bin, 'next'), 'made by the same recipe');
    await writeFile(join(bin, '.half'), '');
    await prepareFolder(folder, 'new', known);
    assert.deepEqual((await readdir(bin)).sort(), ['good', 'next']);
    assert.match(await readFile('/etc/passwd', 'utf8'), /root/);
  });

  it('does nothing when everything is there', async () => {
    await builtCache();
    const manifest = await provideComponents(DEFAULT_VERSION, {
      signal: AbortSignal.abort(),
      onDetail: () => assert.fail(),
    });
    assert.deepEqual(manifest, await readManifest(DEFAULT_VERSION));
  });

  it('gives nodes addresses by hash', async () => {
    await builtCache();
    const [wire] = componentsForWire((await readManifest(DEFAULT_VERSION))!, 'http://10.77.1.1:8080');
    assert.equal(wire?.url, `http://10.77.1.1:8080/components/${wire?.hash.slice(7)}`);
    assert.equal(wire?.installPath, '/run/state/images/one.tar');
  });

  it('lets one build at a time, whatever process it is in, and is free when that is killed', async () => {
    const folder = join(cache, 'locked');
    const source = `
      import { withLock } from ${JSON.stringify(join(import.meta.dirname, 'cache.ts'))};
      await withLock(${JSON.stringify(folder)}, async () => {
        console.log('taken');
        await new Promise((resolve) => setTimeout(resolve, 60_000));
      });`;
    const other = spawn(process.execPath, ['--input-type=module', '-e', source], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    await once(other.stdout, 'data');
    const locked = { code: 'ERR_BUILD_LOCKED', message: new RegExp(`process ${other.pid} `) };
    await assert.rejects(
      withLock(folder, async () => assert.fail()),
      locked,
    );
    const ended = once(other, 'exit');
    other.kill('SIGKILL');
    await ended;
    // The program that held the lock for it ends a moment later.
    for (let left = 50; ; left--) {
      const done = await withLock(folder, async () => 'done').catch((error: Error) => error);
      if (done === 'done') break;
      assert.ok(left > 0, String(done));
      await delay(100);
    }
    await withLock(folder, async () => {
      await assert.rejects(
        withLock(folder, async () => assert.fail()),
        { code: 'ERR_BUILD_LOCKED' },
      );
    });
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
  it('are the same bytes for the same files, whatever their times and owners', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'asterism-oci-'));
    const make = async (name: string, time: string) => {
      const root = join(folder, name);
      await mkdir(join(root, 'bin'), { recursive: true });
      await writeFile(join(root, 'bin/b'), 'b', { mode: 0o755 });
      await writeFile(join(root, 'bin/a'), 'a', { mode: 0o755 });
      await runChecked('touch', ['-d', time, join(root, 'bin/a')], { timeoutMs: 5000 });
      await writeImageArchive(
        root,
        { reference: 'example.local/x:1', entrypoint: ['/bin/a'] },
        join(folder, `${name}.tar`),
      );
      return sha256OfFile(join(folder, `${name}.tar`));
    };
    assert.equal(await make('one', '2001-01-01'), await make('two', '2020-02-02'));
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
});
