import assert from 'node:assert/strict';
import {
  cp,
  mkdir,
  readdir,
  readFile,
  rename,
  rm,
  stat,
  symlink,
  truncate,
  writeFile,
} from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { runChecked } from '@asterism/runtime/program';
import { type TemporaryFolder, temporaryFolder } from '@asterism/testkit/temporary-folder';
import { linkedModules } from './build-info.ts';
import { cacheFolder, sha256OfFile } from './cache.ts';
import { DEFAULT_VERSION } from './catalogue.ts';
import { componentsFolder, readManifest, releaseOf } from './manifest.ts';
import { PINNED_PROGRAMS } from './pinned.ts';
import { provideComponents } from './provide.ts';
import { COMPONENTS_SBOM } from './sbom-components.ts';
import { goCommand } from './toolchain.ts';
import { verifyComponents } from './verify.ts';

const VARIABLES = ['XDG_CACHE_HOME', 'ASTERISM_COMPONENTS_MIRROR'] as const;
const options = { signal: AbortSignal.timeout(600_000), onDetail: () => {} };
const passed = async () =>
  (await verifyComponents(DEFAULT_VERSION).catch(() => [])).every(({ outcome }) => outcome === 'passed');
const skip = !(await passed()) && `needs the components: ./asterism components build ${DEFAULT_VERSION}`;

/** Changes a file as a bad disk would: its other names (the cache that this one is linked to) keep their content. */
async function damage(path: string, change: (copy: string) => Promise<unknown>): Promise<void> {
  await cp(path, `${path}.copy`);
  await change(`${path}.copy`);
  await rename(`${path}.copy`, path);
}

describe('components in the cache', { skip }, () => {
  let folder: TemporaryFolder;
  const set = Object.fromEntries(VARIABLES.map((name) => [name, process.env[name]]));
  before(async () => {
    folder = await temporaryFolder();
    const mirror = folder.file('mirror');
    const copy = folder.file('asterism/components');
    for (const path of [mirror, copy]) await mkdir(path, { recursive: true });
    // The programs by their hash: nothing has to be compiled here.
    const real = componentsFolder(DEFAULT_VERSION);
    for (const [name, sha256] of Object.entries(PINNED_PROGRAMS[DEFAULT_VERSION] ?? {})) {
      await symlink(join(real, 'bin', name), join(mirror, sha256));
    }
    await runChecked('cp', ['-al', real, copy], { timeoutMs: 60_000 });
    const toolchain = dirname(dirname(await goCommand(options)));
    await mkdir(cacheFolder('debian'), { recursive: true });
    await mkdir(folder.file('asterism/go'));
    await symlink(toolchain, folder.file(join('asterism/go', basename(toolchain))));
    await symlink(cacheFolder('debian'), folder.file('asterism/debian'));
    process.env.XDG_CACHE_HOME = folder.path;
    process.env.ASTERISM_COMPONENTS_MIRROR = mirror;
    await provideComponents(DEFAULT_VERSION, options);
  });
  after(async () => {
    for (const name of VARIABLES) {
      if (set[name] === undefined) delete process.env[name];
      else process.env[name] = set[name];
    }
    await folder[Symbol.asyncDispose]();
  });
  const path = (...parts: string[]) => join(componentsFolder(DEFAULT_VERSION), ...parts);

  it('are taken when every byte is right, and nothing is written', async () => {
    const written = (await stat(path('components.json'))).mtimeMs;
    const manifest = await provideComponents(DEFAULT_VERSION, { ...options, onDetail: assert.fail });
    assert.deepEqual(manifest, await readManifest(DEFAULT_VERSION));
    assert.equal((await stat(path('components.json'))).mtimeMs, written);
  });

  const flipped = async (copy: string) => {
    const content = await readFile(copy);
    content[content.length >> 1]! ^= 1;
    await writeFile(copy, content);
  };
  it('are repaired, whatever is wrong with them, where a killed build left no record', async () => {
    const wrong = {
      'bin/kubelet': (copy: string) => truncate(copy),
      'bin/crictl': flipped,
      // Nodes get it in an image only.
      'bin/kube-scheduler': flipped,
      'images/pause.tar': flipped,
      // Nobody pins its bytes.
      'images/flannel.tar': flipped,
      'cni-plugins.tar.gz': (copy: string) => truncate(copy, 1000),
    };
    const right = new Map<string, string>();
    for (const [file, change] of Object.entries(wrong)) {
      right.set(file, await sha256OfFile(path(file)));
      await damage(path(file), change);
    }
    for (const name of ['bin/.build-x/a', 'images/.image-x/a', '.root-x/a', 'bin/unknown']) {
      await mkdir(dirname(path(name)), { recursive: true });
      await writeFile(path(name), '');
    }
    await rm(path('components.json'));
    const { components } = await provideComponents(DEFAULT_VERSION, options);
    for (const [file, sha256] of right) assert.equal(await sha256OfFile(path(file)), sha256, file);
    for (const { file, hash } of components) {
      if (right.has(file)) assert.equal(hash, `sha256:${right.get(file)}`);
    }
    assert.ok(await passed());
    const names = (await readdir(path(), { recursive: true })).map((name) => basename(name));
    assert.deepEqual(
      names.filter((name) => name === 'unknown' || name.startsWith('.')),
      [],
    );
  });

  it('are repaired where verify rejects one, and not believed for a record that was changed with it', async () => {
    await damage(path('bin/kubectl'), flipped);
    const changed = await sha256OfFile(path('bin/kubectl'));
    const record = await readFile(path('components.json'), 'utf8');
    const right = PINNED_PROGRAMS[DEFAULT_VERSION]!.kubectl!;
    await rm(path('components.json'));
    await writeFile(path('components.json'), record.replace(right, changed));
    assert.ok(!(await passed()));
    await provideComponents(DEFAULT_VERSION, options);
    assert.ok(await passed());
    assert.equal(await sha256OfFile(path('bin/kubectl')), right);
  });

  it('come with a bill of what is in them', async () => {
    const bill = JSON.parse(await readFile(path(COMPONENTS_SBOM), 'utf8'));
    const refs: string[] = bill.components.map((one: { 'bom-ref': string }) => one['bom-ref']);
    assert.equal(new Set(refs).size, refs.length);
    const needs = new Map<string, string[]>(
      bill.dependencies.map((one: { ref: string; dependsOn: string[] }) => [one.ref, one.dependsOn]),
    );
    for (const [ref, others] of needs) {
      for (const other of others) assert.ok(refs.includes(other), `${ref} needs ${other}`);
    }
    const etcd = [...needs].find(([ref]) => ref.endsWith('#cmd/etcd'))?.[1] ?? [];
    assert.ok(etcd.some((ref) => /^pkg:golang\/google\.golang\.org\/grpc@v\d/.test(ref)));
    for (const { reference, packages } of releaseOf(DEFAULT_VERSION).images) {
      const debian = needs.get(reference)!.filter((ref) => ref.includes('pkg:deb/debian/'));
      assert.equal(
        debian.some((ref) => ref.includes('/iptables@')),
        packages !== undefined,
        reference,
      );
    }
  });

  it('say which modules are linked into a program as the go command does', async () => {
    const program = path('bin/etcd');
    const said = await runChecked(await goCommand(options), ['version', '-m', program], {
      timeoutMs: 60_000,
    });
    const modules = [...said.matchAll(/^\tdep\t(\S+)\t(\S+)/gm)].map(([, name, version]) => ({
      path: name,
      version,
    }));
    assert.ok(modules.length > 10);
    assert.deepEqual(await linkedModules(program), modules);
  });
});
