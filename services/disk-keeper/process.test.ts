import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdir, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { createVerifier } from '@asterism/attestation/verifier';
import { StateDisk } from '@asterism/disk/state-disk';
import { atlsClient } from '@asterism/rpc/atls-client';
import { API } from '@asterism/rpc/gen/disk_pb';
import { CLUSTER_ID_PCR, clusterIdPcr } from '@asterism/runtime/machine-tpm';
import { freePort } from '@asterism/testkit/free-port';
import { serveMetadata } from '@asterism/testkit/service-process';
import { startSwtpm } from '@asterism/testkit/swtpm';
import { temporaryFolder } from '@asterism/testkit/temporary-folder';
import { AddressedTpm } from '@asterism/tpm/machine';
import { passedSocket, untilIdle } from './activation.ts';

const root = process.getuid?.() !== 0 && 'needs root: the process gets a /run of its own';

test('takes the one socket that systemd passes to it', () => {
  assert.deepEqual(passedSocket({ LISTEN_PID: '7', LISTEN_FDS: '1' }, 7), { fd: 3 });
  for (const env of [{}, { LISTEN_PID: '8', LISTEN_FDS: '1' }, { LISTEN_PID: '7', LISTEN_FDS: '2' }])
    assert.throws(() => passedSocket(env, 7), { code: 'ERR_NO_SOCKET' });
});

test('is idle once nobody is there any more, or at the signal', async () => {
  let connections = 1;
  let idle = false;
  const never = new AbortController().signal;
  const ended = untilIdle(() => connections, 30, never, 1).then(() => {
    idle = true;
  });
  await sleep(100);
  assert.equal(idle, false);
  connections = 0;
  await ended;
  await untilIdle(() => 1, 1, AbortSignal.abort());
});

test('is started by a call, as systemd does it, and answers it', {
  skip: root,
  timeout: 120_000,
}, async () => {
  await using stack = new AsyncDisposableStack();
  const folder = stack.use(await temporaryFolder());
  const tpm = stack.use(await startSwtpm());
  const device = folder.file('disk.img');
  await writeFile(device, '');
  await truncate(device, 24 * 1024 * 1024);
  const disk = new StateDisk({ device, mappable: false, scratch: folder.file('scratch') });
  await disk.format(Uint8Array.from(randomBytes(32)));
  await disk.setInitialized(true);
  await new AddressedTpm(tpm.address, 'ecc-p256').extendClusterId(new Uint8Array(32));
  const metadata = folder.file('metadata.sock');
  const self = { name: 'worker-0', providerId: 'local://worker-0', vpcIp: '127.0.0.1' };
  const machine = { ...self, role: 'Worker', secondaryIpRange: '', aliasIpRanges: [] } as const;
  stack.use(await serveMetadata(metadata, [machine]));
  await mkdir(folder.file('run'));
  const port = await freePort();
  const environment = {
    PATH: '/usr/sbin:/usr/bin:/sbin:/bin',
    ASTERISM_ATTESTATION_VARIANT: 'qemu-vtpm',
    ASTERISM_TPM: tpm.address,
    ASTERISM_METADATA: `unix:${metadata}`,
    ASTERISM_STATE_DISK: device,
    ASTERISM_PROVIDER: 'local',
    ASTERISM_STATE_MAPPED: 'false',
  };
  const main = join(import.meta.dirname, 'main.ts');
  const names = Object.keys(environment).map((name) => `-E ${name}`);
  const activate = `systemd-socket-activate -l 127.0.0.1:${port} ${names.join(' ')} "${process.execPath}" "${main}"`;
  const child = spawn(
    'unshare',
    [
      '--mount',
      '--propagation',
      'private',
      'sh',
      '-c',
      `mount --bind ${folder.file('run')} /run && exec ${activate}`,
    ],
    { stdio: ['ignore', 'pipe', 'pipe'], env: environment },
  );
  stack.defer(() => void child.kill('SIGKILL'));
  const lines: string[] = [];
  createInterface({ input: child.stdout }).on('line', (line) => lines.push(JSON.parse(line).msg));
  let said = '';
  child.stderr.on('data', (chunk) => (said += chunk));
  while (!/Listening on/.test(said)) {
    assert.equal(child.exitCode, null, said);
    await sleep(20);
  }
  assert.deepEqual(lines, [], 'nothing runs before somebody calls');
  const expected = clusterIdPcr(new Uint8Array(32));
  const measurements = new Map([[CLUSTER_ID_PCR, { expected, warnOnly: false }]]);
  const verifier = createVerifier({ variant: 'qemu-vtpm', measurements });
  const client = atlsClient(API, {
    host: '127.0.0.1',
    port,
    verifiers: [verifier],
    handshakeTimeoutMs: 30_000,
  });
  stack.defer(() => client.close());
  // There is no control plane here to ask.
  await assert.rejects(client.syncDisk({}), { code: 'ERR_UNREACHABLE', message: /names no control plane/ });
  client.close();
  child.kill('SIGTERM');
  const [code] = await once(child, 'close');
  assert.equal(code, 0, said);
  assert.equal(lines[0], 'serving');
});
