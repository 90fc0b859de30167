import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { appendFile, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { runChecked } from '@asterism/runtime/program';
import { writeImageArchive } from '../oci/archive.ts';
import { buildProgram } from './build-go.ts';
import { sha256OfFile, withLock } from './cache.ts';
import { DEFAULT_VERSION, RELEASES } from './catalogue.ts';
import {
  componentsFolder,
  componentsForWire,
  provideComponents,
  readManifest,
  releaseOf,
} from './provide.ts';
import { recipeOf } from './recipe.ts';
import { verifyComponents } from './verify.ts';

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

  /** A cache that looks as after a build, with small files. */
  async function builtCache(): Promise<void> {
    const folder = componentsFolder(DEFAULT_VERSION);
    await rm(folder, { recursive: true, force: true });
    await mkdir(join(folder, 'bin'), { recursive: true });
    await writeFile(join(folder, 'bin/kubelet'), 'a kubelet');
    const hash = `sha256:${await sha256OfFile(join(folder, 'bin/kubelet'))}`;
    const entry = {
      name: 'kubelet',
      file: 'bin/kubelet',
      hash,
      size: 9,
      installPath: '/run/state/bin/kubelet',
      extract: false,
    };
    await writeFile(
      join(folder, 'components.json'),
      JSON.stringify({
        version: DEFAULT_VERSION,
        recipe: await recipeOf(releaseOf(DEFAULT_VERSION)),
        components: [entry],
      }),
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
    await appendFile(join(componentsFolder(DEFAULT_VERSION), 'bin/kubelet'), '!');
    assert.equal(await outcome(), 'failed');
    await rm(join(componentsFolder(DEFAULT_VERSION), 'bin/kubelet'));
    assert.equal(await outcome(), 'missing');
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
    assert.equal(wire?.installPath, '/run/state/bin/kubelet');
  });

  it('lets one process build at a time, and takes over from one that is gone', async () => {
    const folder = join(cache, 'locked');
    const other = spawn('sleep', ['60']);
    await mkdir(folder, { recursive: true });
    await writeFile(join(folder, '.lock'), String(other.pid));
    await assert.rejects(
      withLock(folder, async () => {}),
      { code: 'ERR_BUILD_LOCKED' },
    );
    const ended = new Promise((resolve) => other.once('exit', resolve));
    other.kill('SIGKILL');
    await ended;
    assert.equal(await withLock(folder, async () => 'done'), 'done');
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
