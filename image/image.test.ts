import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  chmod,
  cp,
  link,
  mkdir,
  mkdtemp,
  open,
  readdir,
  readFile,
  rm,
  symlink,
  utimes,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { promisify } from 'node:util';
import { toHex } from '@asterism/bytes/encoding';
import { parseEventLog, replay, SHA256 } from '@asterism/eventlog/event-log';
import { writeEventLog } from '@asterism/eventlog/write';
import { sha256OfFile } from '@asterism/kubernetes/components/cache';
import { INITRD_SERVICES, packInitrd, readImage } from './build.ts';
import { ROOT } from './bundle.ts';
import { pruneImages } from './prune.ts';
import { addOwnFiles, MASKED, type OwnParts } from './rootfs.ts';
import { packSquashfs } from './squashfs.ts';
import { predictMeasurements, STAGES, stageDigest } from './stages.ts';

const TIMEOUT_MS = 120_000;
const run = promisify(execFile);
const sha256 = (...parts: (string | Uint8Array)[]) =>
  parts.reduce((hash, part) => hash.update(part), createHash('sha256')).digest();

async function scratch(): Promise<string> {
  return mkdtemp(join(tmpdir(), 'asterism-image-'));
}

/** The files of an image, with a reference over them as the builder writes it. */
async function smallImage(folder: string): Promise<void> {
  const contents = { 'boot.sh': 'boot', cmdline: 'a=b\n', 'initrd.tar': 'initrd', 'node.squashfs': 'root' };
  for (const [name, content] of Object.entries(contents)) await writeFile(join(folder, name), content);
  const digests = STAGES.map(({ file }) => sha256(contents[file]).toString('hex'));
  await writeFile(join(folder, 'reference'), `sha256:${sha256(...digests).toString('hex')}`);
}

/** PCRs whose expected value is not the same. */
async function differing(folder: string, change: () => Promise<void>): Promise<number[]> {
  const before_ = await predictMeasurements(folder);
  await change();
  const after_ = await predictMeasurements(folder);
  return [...before_]
    .filter(([index, { expected }]) => toHex(after_.get(index)!.expected) !== toHex(expected))
    .map(([index]) => index);
}

/** Changes one bit of a file. */
async function flip(path: string, offset: number): Promise<void> {
  const file = await open(path, 'r+');
  const byte = Buffer.alloc(1);
  assert.equal((await file.read(byte, 0, 1, offset)).bytesRead, 1);
  await file.write(Buffer.from([byte[0]! ^ 1]), 0, 1, offset);
  await file.close();
}

const UMASKS = [
  ['one', 0o022],
  ['two', 0o077],
] as const;

async function withUmask<T>(umask: number, use: () => Promise<T>): Promise<T> {
  const before_ = process.umask(umask);
  try {
    return await use();
  } finally {
    process.umask(before_);
  }
}

describe('measurements of an image', () => {
  let folder: string;
  before(async () => {
    folder = await scratch();
    await smallImage(folder);
  });
  after(() => rm(folder, { recursive: true, force: true }));

  it('are the extend rule over the digests of its files', async () => {
    const measurements = await predictMeasurements(folder);
    const zero = Buffer.alloc(32);
    const value = (pcr: number) => toHex(measurements.get(pcr)!.expected);
    assert.equal(value(4), sha256(zero, sha256('boot')).toString('hex'));
    assert.equal(value(9), sha256(zero, sha256('initrd')).toString('hex'));
    assert.equal(value(11), sha256(zero, sha256('root')).toString('hex'));
    assert.equal(value(12), sha256(zero, sha256(Buffer.from('a=b\0', 'utf16le'))).toString('hex'));
    assert.deepEqual([...measurements.keys()], [4, 8, 9, 11, 12, 13, 15]);
    for (const pcr of [8, 13, 15]) assert.equal(value(pcr), '00'.repeat(32));
    for (const { warnOnly } of measurements.values()) assert.equal(warnOnly, false);
  });

  it('are where an event log of its stages leads', async () => {
    const measured = await Promise.all(
      STAGES.map(async ({ pcr, file, description }) => ({
        pcr,
        description,
        digest: await stageDigest(file, join(folder, file)),
      })),
    );
    const replayed = await replay(parseEventLog(writeEventLog(measured)), SHA256);
    const predicted = await predictMeasurements(folder);
    assert.equal(replayed.size, STAGES.length);
    for (const [pcr, value] of replayed) assert.equal(toHex(value), toHex(predicted.get(pcr)!.expected));
  });

  for (const { file, pcr } of STAGES) {
    it(`another byte in ${file} changes PCR ${pcr} and no other`, async () => {
      const path = join(folder, file);
      const original = await readFile(path);
      assert.deepEqual(await differing(folder, () => flip(path, 0)), [pcr]);
      await writeFile(path, original);
      // The command line ends where its line ends; anything else may not even grow.
      const more = file === 'cmdline' ? 'a=b c\n' : `${original}\0`;
      assert.deepEqual(await differing(folder, () => writeFile(path, more)), [pcr]);
      await writeFile(path, original);
    });
  }

  it('need every file', async () => {
    for (const { file } of STAGES) {
      const content = await readFile(join(folder, file));
      await rm(join(folder, file));
      await assert.rejects(predictMeasurements(folder), { code: 'ENOENT' });
      await writeFile(join(folder, file), content);
    }
  });
});

describe('an image in the cache', () => {
  let folder: string;
  before(async () => {
    folder = await scratch();
    await smallImage(folder);
  });
  after(() => rm(folder, { recursive: true, force: true }));

  it('is taken when its files are those of its reference', async () => {
    const image = await readImage(folder);
    assert.match(image!.reference, /^sha256:[0-9a-f]{64}$/);
    assert.deepEqual(image!.measurements, await predictMeasurements(folder));
  });

  for (const { file } of STAGES) {
    it(`is not taken when ${file} has changed, was cut or is missing`, async () => {
      const path = join(folder, file);
      const original = await readFile(path);
      await flip(path, original.length - 1);
      assert.equal(await readImage(folder), undefined);
      await writeFile(path, original.subarray(0, -1));
      assert.equal(await readImage(folder), undefined);
      await rm(path);
      assert.equal(await readImage(folder), undefined);
      await writeFile(path, original);
      assert.notEqual(await readImage(folder), undefined);
    });
  }

  it('is not taken before its reference is written', async () => {
    await rm(join(folder, 'reference'));
    assert.equal(await readImage(folder), undefined);
  });
});

describe('the initrd stage', () => {
  let folder: string;
  before(async () => {
    folder = await scratch();
    for (const [name, umask] of UMASKS) {
      await withUmask(umask, async () => {
        await mkdir(join(folder, name));
        const to = join(folder, name, 'initrd.tar');
        await packInitrd(join(folder, name), to, AbortSignal.timeout(TIMEOUT_MS));
      });
    }
  });
  after(() => rm(folder, { recursive: true, force: true }));

  it('is the same bytes when it is built again, by somebody with another umask', async () => {
    assert.equal(
      await sha256OfFile(join(folder, 'one/initrd.tar')),
      await sha256OfFile(join(folder, 'two/initrd.tar')),
    );
  });

  it('holds the bundles and nothing else, and says nothing of where it was built', async () => {
    const { stdout } = await run('tar', ['-tvf', join(folder, 'one/initrd.tar')]);
    const names = stdout.trim().split('\n');
    assert.deepEqual(
      names.map((line) => line.split(' ').at(-1)).sort(),
      ['./', ...INITRD_SERVICES.map((name) => `./${name}.mjs`)].sort(),
    );
    for (const line of names) assert.match(line, /^(?:-rw-r--r--|drwxr-xr-x) 0\/0 .* 1970-01-01 00:00 /);
    for (const name of INITRD_SERVICES) {
      const bundle = await readFile(join(folder, 'one/initrd', `${name}.mjs`), 'utf8');
      assert.ok(!bundle.includes(ROOT) && !bundle.includes(folder), `${name} holds a path of this machine`);
    }
  });

  for (const name of INITRD_SERVICES) {
    it(`a letter of a comment in ${name} changes PCR 9 and no other`, async () => {
      await smallImage(folder);
      await cp(join(folder, 'one/initrd.tar'), join(folder, 'initrd.tar'));
      const content = await readFile(join(folder, 'initrd.tar'));
      const offset = content.indexOf('\n// ', content.indexOf(`${name}.mjs`)) + 4;
      assert.ok(offset > 4);
      assert.deepEqual(await differing(folder, () => flip(join(folder, 'initrd.tar'), offset)), [9]);
    });
  }
});

describe('the root file system', () => {
  let folder: string;
  let parts: OwnParts;
  before(async () => {
    folder = await scratch();
    parts = {
      nodePrograms: join(folder, 'programs'),
      servicesImage: join(folder, 'services.tar'),
      manifests: join(folder, 'manifests'),
    };
    await mkdir(parts.nodePrograms);
    await mkdir(parts.manifests);
    await writeFile(join(parts.nodePrograms, 'containerd'), 'program', { mode: 0o755 });
    await writeFile(join(parts.nodePrograms, '.containerd.part'), 'half of a program');
    await writeFile(join(parts.manifests, '10-a.yaml'), 'a: 1\n');
    await writeFile(parts.servicesImage, 'image');
    // What stands for the Debian part has files, links and units where ours go.
    const units = join(folder, 'debian/etc/systemd/system');
    await mkdir(units, { recursive: true });
    await writeFile(join(units, 'containerd.service'), 'of Debian');
    await symlink('/lib/systemd/system/x', join(units, MASKED[0]!));
  });
  after(() => rm(folder, { recursive: true, force: true }));

  const build = async (name: string) => {
    const root = join(folder, name);
    await run('cp', ['-al', join(folder, 'debian'), root]);
    await addOwnFiles(root, parts);
    return root;
  };

  it('is the same bytes when it is built again, at another time, in another order, with another umask', async () => {
    const one = await withUmask(0o022, () => build('one'));
    // As a checkout under another umask would be.
    for (const name of ['programs/containerd', 'manifests/10-a.yaml', 'services.tar'])
      await chmod(join(folder, name), 0o600);
    const two = await withUmask(0o077, () => build('two'));
    const old = new Date(1e12);
    const later = join(two, 'usr/lib/asterism/deploy/10-a.yaml');
    await utimes(later, old, old);
    const content = await readFile(later);
    await rm(later);
    await writeFile(later, content, { mode: 0o644 });
    for (const root of [one, two])
      await packSquashfs(root, `${root}.squashfs`, AbortSignal.timeout(TIMEOUT_MS));
    assert.equal(await sha256OfFile(`${one}.squashfs`), await sha256OfFile(`${two}.squashfs`));
    const { stdout } = await run('unsquashfs', ['-lln', `${one}.squashfs`]);
    assert.match(stdout, /^-rwxr-xr-x 0\/0 .* 2026-01-01 .*usr\/lib\/asterism\/node$/m);
    assert.match(stdout, /^-rw-r--r-- .*usr\/lib\/asterism\/deploy\/10-a.yaml$/m);
    assert.match(stdout, /^drwxr-xr-x .*usr\/lib\/asterism\/deploy$/m);
    assert.doesNotMatch(stdout, /\.part$/m);
  });

  it('another byte in a file of it changes PCR 11 and no other', async () => {
    const image = join(folder, 'image');
    await mkdir(image);
    await smallImage(image);
    const squashfs = join(image, 'node.squashfs');
    const root = await build('three');
    await packSquashfs(root, squashfs, AbortSignal.timeout(TIMEOUT_MS));
    const changed = await differing(image, async () => {
      await flip(join(root, 'usr/lib/asterism/deploy/10-a.yaml'), 0);
      await packSquashfs(root, squashfs, AbortSignal.timeout(TIMEOUT_MS));
    });
    assert.deepEqual(changed, [11]);
  });

  it('takes nothing of the cached Debian part with it when it changes', async () => {
    const root = await build('four');
    const cached = join(folder, 'debian/etc/systemd/system');
    const ours = join(root, 'etc/systemd/system');
    assert.equal(await readFile(join(cached, 'containerd.service'), 'utf8'), 'of Debian');
    assert.match(await readFile(join(ours, 'containerd.service'), 'utf8'), /^ExecStart=/m);
    assert.deepEqual((await readdir(cached)).sort(), [MASKED[0], 'containerd.service']);
  });
});

describe('pruning', () => {
  it('keeps the newest of each kind and what is not its own', async () => {
    const folder = await scratch();
    const make = async (name: string, age: number) => {
      await mkdir(join(folder, name));
      const time = new Date(Date.now() - age * 1000);
      await utimes(join(folder, name), time, time);
    };
    for (let age = 0; age < 8; age++) {
      await make(`000000000000000${age}`, age);
      await make(`debian-000000000000000${age}`, age);
    }
    for (const name of ['.node-abc', '.debian-abc']) await make(name, 0);
    await make('e2e-0123456789ab', 99);
    await writeFile(join(folder, 'latest'), '0000000000000000');
    await link(join(folder, 'latest'), join(folder, 'zzz'));
    await pruneImages(folder);
    assert.deepEqual((await readdir(folder)).sort(), [
      ...[0, 1, 2, 3, 4].map((age) => `000000000000000${age}`),
      ...[0, 1].map((age) => `debian-000000000000000${age}`),
      'e2e-0123456789ab',
      'latest',
      'zzz',
    ]);
    await rm(folder, { recursive: true, force: true });
  });
});
