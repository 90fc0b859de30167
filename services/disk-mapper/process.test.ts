import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { test } from 'node:test';
import { StateDisk } from '@asterism/disk/state-disk';
import type { InstanceMetadata } from '@asterism/metadata/types';
import { serveMetadata } from '@asterism/testkit/service-process';
import { startSwtpm } from '@asterism/testkit/swtpm';
import { temporaryFolder } from '@asterism/testkit/temporary-folder';

const root = process.getuid?.() !== 0 && 'needs root: the process gets a /run and a network of its own';
const limits = { skip: root, timeout: 180_000 };

const self = (role: InstanceMetadata['role']): InstanceMetadata => ({
  name: 'control-plane-0',
  providerId: 'local://control-plane-0',
  role,
  vpcIp: '127.0.0.1',
  secondaryIpRange: '',
  aliasIpRanges: [],
});

/** The disk-mapper on a machine with a TPM and a blank disk, which knows no provider yet. */
async function machine() {
  const stack = new AsyncDisposableStack();
  const folder = stack.use(await temporaryFolder());
  const tpm = stack.use(await startSwtpm());
  const device = folder.file('disk.img');
  await writeFile(device, '');
  await truncate(device, 24 * 1024 * 1024);
  const metadata = folder.file('metadata.sock');
  const main = join(import.meta.dirname, 'main.ts');
  const start = () => {
    const script = `mount -t tmpfs tmpfs /run && ip link set lo up && exec "${process.execPath}" "${main}"`;
    const child = spawn('unshare', ['--mount', '--net', '--propagation', 'private', 'sh', '-c', script], {
      stdio: ['ignore', 'pipe', 'inherit'],
      env: {
        PATH: '/usr/sbin:/usr/bin:/sbin:/bin',
        ASTERISM_ATTESTATION_VARIANT: 'qemu-vtpm',
        ASTERISM_TPM: tpm.address,
        ASTERISM_METADATA: `unix:${metadata}`,
        ASTERISM_STATE_DISK: device,
        ASTERISM_PROVIDER: 'local',
        ASTERISM_STATE_MAPPED: 'false',
      },
    });
    stack.defer(() => void child.kill('SIGKILL'));
    const lines: { level: number; msg: string; err?: object }[] = [];
    const waiting = new Set<() => void>();
    const output = createInterface({ input: child.stdout }).on('line', (line) => {
      lines.push(JSON.parse(line));
      for (const look of waiting) look();
    });
    // The last lines may still be on their way through the reader when the process is gone.
    const ended = Promise.all([once(child, 'close'), once(output, 'close')]).then(
      ([[code]]): number | null => code,
    );
    /** Waits for a line of the log. */
    const said = (message: RegExp): Promise<void> =>
      new Promise((resolve, reject) => {
        const look = (): void => {
          if (lines.some(({ msg }) => message.test(msg))) resolve();
        };
        waiting.add(look);
        look();
        void ended.then(() => reject(new Error(`it has ended without ${message}: ${JSON.stringify(lines)}`)));
      });
    return { child, ended, lines, said };
  };
  const disk = new StateDisk({ device, mappable: false, scratch: folder.file('scratch') });
  return { start, disk, metadata, [Symbol.asyncDispose]: () => stack.disposeAsync() };
}

test('a blank disk is formatted, and the process ends with 0', limits, async () => {
  await using node = await machine();
  const { ended, lines } = node.start();
  assert.equal(await ended, 0, JSON.stringify(lines));
  assert.equal((await node.disk.header()).initialized, false);
  assert.equal(lines.at(-1)?.msg, 'disk-mapper done');
});

test(
  "a member's disk-mapper waits for metadata, for its role and for its key, and ends with 0 at SIGTERM",
  limits,
  async () => {
    await using node = await machine();
    await node.disk.format(Uint8Array.from(randomBytes(32)));
    await node.disk.setInitialized(true);
    const steps: [RegExp, InstanceMetadata['role'] | undefined][] = [
      [/role of this machine is not known yet/, undefined],
      [/role of this machine is not known yet/, 'Unknown'],
      [/recovery is served/, 'ControlPlane'],
    ];
    for (const [message, role] of steps) {
      await using _ = role === undefined ? undefined : await serveMetadata(node.metadata, [self(role)]);
      const { child, ended, lines, said } = node.start();
      await said(message);
      child.kill('SIGTERM');
      assert.equal(await ended, 0, JSON.stringify(lines));
      assert.match(lines.at(-1)!.msg, /^stopping/);
      assert.ok(
        lines.every(({ level }) => level < 50),
        JSON.stringify(lines),
      );
    }
  },
);

test('one that found no provider serves recovery once there is one', limits, async () => {
  await using node = await machine();
  await node.disk.format(Uint8Array.from(randomBytes(32)));
  await node.disk.setInitialized(true);
  const { child, ended, said } = node.start();
  await said(/role of this machine is not known yet/);
  await using _ = await serveMetadata(node.metadata, [self('ControlPlane')]);
  await said(/recovery is served/);
  child.kill('SIGTERM');
  assert.equal(await ended, 0);
});
