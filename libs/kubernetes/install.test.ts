import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { lstat, mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { createServer, type RequestListener, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { after, before, beforeEach, describe, it } from 'node:test';
import { pathToFileURL } from 'node:url';
import { runChecked } from '@asterism/runtime/program';
import { type Component, type InstallOptions, installComponent } from './install.ts';

const content = Buffer.alloc(300_000, 'kubelet ');
const hashOf = (bytes: Uint8Array): string => `sha256:${createHash('sha256').update(bytes).digest('hex')}`;

describe('component installer', () => {
  let root: string;
  let folder: string;
  let server: Server;
  let base: string;
  let handler: RequestListener;
  let requests = 0;

  before(async () => {
    root = await mkdtemp(`${tmpdir()}/asterism-install-`);
    server = createServer((request, response) => {
      requests++;
      handler(request, response);
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    base = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  });
  after(async () => {
    server.closeAllConnections();
    server.close();
    await rm(root, { recursive: true, force: true });
  });
  beforeEach(async () => {
    folder = await mkdtemp(`${root}/t-`);
    requests = 0;
    handler = (_, response) => response.end(content);
  });

  const component = (over: Partial<Component> = {}): Component => ({
    url: `${base}/kubelet`,
    hash: hashOf(content),
    installPath: `${folder}/bin/kubelet`,
    extract: false,
    ...over,
  });
  const options = (over: Partial<InstallOptions> = {}): InstallOptions => ({
    allowedRoots: [folder],
    backoffMs: 10,
    idleMs: 300,
    timeoutMs: 3000,
    ...over,
  });
  const nothingInstalled = async (): Promise<void> => {
    const names = await readdir(`${folder}/bin`).catch(() => []);
    assert.deepEqual(names, []);
  };

  it('downloads, checks and installs with mode 0544', async () => {
    await installComponent(component(), options());
    const info = await lstat(`${folder}/bin/kubelet`);
    assert.equal(info.mode & 0o777, 0o544);
    assert.deepEqual(await readFile(`${folder}/bin/kubelet`), content);
    assert.deepEqual(await readdir(`${folder}/bin`), ['kubelet']);
  });

  it('reads file URLs', async () => {
    await writeFile(`${folder}/source`, content);
    await installComponent(component({ url: pathToFileURL(`${folder}/source`).href }), options());
    assert.deepEqual(await readFile(`${folder}/bin/kubelet`), content);
  });

  it('keeps a file that has the right hash without asking again', async () => {
    await installComponent(component(), options());
    await installComponent(component(), options());
    assert.equal(requests, 1);
  });

  it('installs nothing where the hash differs, and does not try again', async () => {
    handler = (_, response) => response.end(Buffer.concat([content.subarray(1), Buffer.from('x')]));
    await assert.rejects(installComponent(component(), options()), { code: 'ERR_COMPONENT_HASH' });
    assert.equal(requests, 1);
    await nothingInstalled();
  });

  it('leaves the earlier file where the new one is false', async () => {
    await installComponent(component(), options());
    handler = (_, response) => response.end('evil');
    await assert.rejects(installComponent(component({ hash: hashOf(Buffer.from('other')) }), options()), {
      code: 'ERR_COMPONENT_HASH',
    });
    assert.deepEqual(await readFile(`${folder}/bin/kubelet`), content);
  });

  it('gives up on truncated answers, leaving nothing', async () => {
    handler = (_, response) => {
      response.writeHead(200, { 'content-length': content.length });
      response.write(content.subarray(0, 1000));
      setImmediate(() => response.destroy());
    };
    await assert.rejects(installComponent(component(), options({ timeoutMs: 500 })), {
      code: 'ERR_UNREACHABLE',
    });
    assert.ok(requests > 1, 'it tried more than once');
    await nothingInstalled();
  });

  it('stops an endless answer at the limit', async () => {
    handler = (_, response) => {
      const write = (): void => {
        while (!response.destroyed && response.write(content));
      };
      response.on('drain', write);
      write();
    };
    await assert.rejects(installComponent(component(), options({ maxBytes: 2_000_000 })), {
      code: 'ERR_COMPONENT_SIZE',
    });
    await nothingInstalled();
  });

  it('refuses an announced size beyond the limit', async () => {
    await assert.rejects(installComponent(component(), options({ maxBytes: 1000 })), {
      code: 'ERR_COMPONENT_SIZE',
    });
  });

  it('gives up on a server that stays silent', async () => {
    handler = (_, response) => {
      response.write('k');
    };
    const started = Date.now();
    await assert.rejects(installComponent(component(), options({ idleMs: 100, timeoutMs: 600 })), {
      code: 'ERR_UNREACHABLE',
    });
    assert.ok(Date.now() - started < 3000);
    await nothingInstalled();
  });

  it('comes through two failures', async () => {
    handler = (_, response) => {
      if (requests < 3) response.writeHead(503).end();
      else response.end(content);
    };
    await installComponent(component(), options());
    assert.equal(requests, 3);
  });

  it('stops when its caller gives up', async () => {
    handler = () => {};
    const signal = AbortSignal.timeout(100);
    await assert.rejects(installComponent(component(), options({ signal })), { code: 'ERR_UNREACHABLE' });
  });

  it('sweeps what a killed installation left', async () => {
    await mkdir(`${folder}/bin/.asterism-install-dead.unpacked`, { recursive: true });
    await installComponent(component(), options());
    assert.deepEqual(await readdir(`${folder}/bin`), ['kubelet']);
  });

  for (const [what, over] of [
    ['a path outside', { installPath: '/etc/passwd' }],
    ['a climbing path', { installPath: '/run/state/bin/../../etc/x' }],
    ['a relative path', { installPath: 'bin/kubelet' }],
    ['no hash', { hash: '' }],
    ['another hash', { hash: `sha1:${'0'.repeat(40)}` }],
    ['another scheme', { url: 'ftp://127.0.0.1/x' }],
    ['no URL', { url: 'kubelet' }],
  ] as const) {
    it(`refuses ${what} before any request`, async () => {
      await assert.rejects(installComponent(component(over), options({ allowedRoots: ['/run/state'] })), {
        code: 'ERR_COMPONENT_REQUEST',
      });
      assert.equal(requests, 0);
    });
  }

  describe('archives', () => {
    let source: string;
    const pack = async (args: readonly string[]): Promise<Component> => {
      await runChecked('tar', ['-C', source, '-czf', `${folder}/a.tgz`, ...args], { timeoutMs: 10_000 });
      const bytes = await readFile(`${folder}/a.tgz`);
      handler = (_, response) => response.end(bytes);
      return component({ hash: hashOf(bytes), installPath: `${folder}/cni/bin`, extract: true });
    };
    beforeEach(async () => {
      source = `${folder}/source`;
      await mkdir(`${source}/sub`, { recursive: true });
      await writeFile(`${source}/bridge`, content, { mode: 0o755 });
      await writeFile(`${source}/sub/${'long'.repeat(40)}`, 'x', { mode: 0o640 });
    });

    for (const format of ['ustar', 'gnu', 'pax']) {
      it(`unpacks ${format}`, async () => {
        await symlink('bridge', `${source}/link`);
        const args = format === 'ustar' ? ['--exclude=sub/*'] : [];
        await installComponent(await pack([`--format=${format}`, ...args, '.']), options());
        assert.deepEqual(await readFile(`${folder}/cni/bin/link`), content);
        assert.equal((await lstat(`${folder}/cni/bin/bridge`)).mode & 0o777, 0o755);
        if (format !== 'ustar') {
          assert.equal((await lstat(`${folder}/cni/bin/sub/${'long'.repeat(40)}`)).mode & 0o777, 0o644);
        }
        assert.deepEqual(await readdir(`${folder}/cni`), ['bin']);
      });
    }

    it('merges into a folder that is there, twice', async () => {
      await mkdir(`${folder}/cni/bin`, { recursive: true });
      await writeFile(`${folder}/cni/bin/other`, 'kept');
      const packed = await pack(['.']);
      await installComponent(packed, options());
      await installComponent(packed, options());
      assert.deepEqual((await readdir(`${folder}/cni/bin`)).sort(), ['bridge', 'other', 'sub']);
    });

    const refused: Record<string, () => Promise<Component>> = {
      'a climbing name': () => pack(['-P', '--transform=s,^bridge,../../bridge,', 'bridge']),
      'an absolute link': async () => {
        await symlink('/etc', `${source}/etc`);
        return pack(['etc']);
      },
      'a climbing link': async () => {
        await symlink('../../..', `${source}/up`);
        return pack(['up']);
      },
      'a file through a link of the archive': async () => {
        await symlink('sub', `${source}/door`);
        await mkdir(`${folder}/second/door`, { recursive: true });
        await writeFile(`${folder}/second/door/file`, 'x');
        return pack(['door', '-C', `${folder}/second`, 'door/file']);
      },
      'a device': async () => {
        await runChecked('mkfifo', [`${source}/pipe`], { timeoutMs: 5000 });
        return pack(['pipe']);
      },
      'the same name twice': () => pack(['bridge', 'bridge']),
      'a hard link': async () => {
        await runChecked('ln', [`${source}/bridge`, `${source}/hard`], { timeoutMs: 5000 });
        return pack(['bridge', 'hard']);
      },
    };
    for (const [what, make] of Object.entries(refused)) {
      it(`refuses ${what}, installing nothing`, async () => {
        await assert.rejects(installComponent(await make(), options()), { code: 'ERR_PARSE' });
        assert.deepEqual(await readdir(`${folder}/cni`), []);
      });
    }

    it('refuses more bytes than allowed after decompression', async () => {
      await writeFile(`${source}/bomb`, Buffer.alloc(20_000_000));
      await assert.rejects(installComponent(await pack(['bomb']), options({ maxBytes: 1_000_000 })), {
        code: 'ERR_PARSE',
        message: /unpacks to more/,
      });
    });

    it('refuses an archive that is cut off or no archive', async () => {
      const packed = await pack(['.']);
      const whole = await readFile(`${folder}/a.tgz`);
      for (const bytes of [
        whole.subarray(0, whole.length - 100),
        Buffer.from('no archive'),
        Buffer.alloc(0),
      ]) {
        handler = (_, response) => response.end(bytes);
        await assert.rejects(installComponent({ ...packed, hash: hashOf(bytes) }, options()), {
          code: 'ERR_PARSE',
        });
      }
      assert.deepEqual(await readdir(`${folder}/cni`), []);
    });
  });
});
