import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';
import { createQemuVtpmIssuer } from '@asterism/attestation/variants/qemu-vtpm/issue';
import { toHex } from '@asterism/bytes/encoding';
import { deriveKey } from '@asterism/crypto/derive';
import { atlsClient } from '@asterism/rpc/atls-client';
import { API } from '@asterism/rpc/gen/join_pb';
import { verifyAuditLog } from '@asterism/runtime/audit-log';
import type { ServiceName } from '@asterism/testkit/service-process';
import { kubeletCsr, type ServicesOfCluster, startServices } from '@asterism/testkit/services';
import { temporaryFolder } from '@asterism/testkit/temporary-folder';
import { bundle } from './bundle.ts';

const HOST = '127.0.0.1';
const DISK = '00000000-0000-4000-8000-000000000001';
const root = process.getuid?.() !== 0 && 'needs root: the services get their volumes by mounts';

async function start(folder: { file(name: string): string }, ...names: ServiceName[]) {
  const bundles = new Map<ServiceName, string>();
  for (const name of names) {
    bundles.set(name, folder.file(`${name}.mjs`));
    await bundle(`services/${name}/main.ts`, folder.file(`${name}.mjs`));
  }
  return startServices(bundles);
}

/** Each ends with 0 at SIGTERM and has logged nothing but JSON, and no errors. */
async function stopAll({ processes }: ServicesOfCluster): Promise<void> {
  for (const [name, service] of processes) {
    const { code, lines } = await service.stop();
    assert.equal(code, 0, `${name}: ${JSON.stringify(lines)}`);
    assert.ok(lines.length > 0 && lines.every((line) => line.name === name && Number(line.level) < 50));
    assert.ok(lines.some(({ msg }) => msg === 'stopping'));
  }
}

test('JoinService and KeyService as they are shipped: a worker joins', {
  skip: root,
  timeout: 240_000,
}, async () => {
  await using folder = await temporaryFolder();
  await using services = await start(folder, 'key-service', 'join-service');
  const issuer = createQemuVtpmIssuer({ tpmAddress: services.tpm.address, eventLogPath: undefined });
  const client = atlsClient(API, { host: HOST, port: 9090, issuer, verifiers: [] });
  const answer = await client.issueJoinTicket({
    diskUuid: DISK,
    certificateRequest: kubeletCsr('worker-0', HOST),
  });
  client.close();
  const [key, salt] = [new Uint8Array(32).fill(1), new Uint8Array(32).fill(2)];
  assert.equal(toHex(answer.stateDiskKey), toHex(deriveKey(key, salt, `key-${DISK}`, 32)));
  for (const service of services.processes.values()) {
    assert.equal((await service.health('/healthz')).status, 200);
    assert.match((await service.health('/metrics')).text, /outcome="granted",reason=""\} [12]$/m);
  }
  await stopAll(services);
  for (const [name, lines] of [
    ['key-service', 2],
    ['join-service', 1],
  ] as const) {
    const path = `${services.folder.path}/${name}/run/state/asterism/audit/${name}.log`;
    assert.equal((await verifyAuditLog(path)).lines, lines, await readFile(path, 'utf8'));
  }
});

test('VerificationService as it is shipped', { skip: root, timeout: 240_000 }, async () => {
  await using folder = await temporaryFolder();
  await using services = await start(folder, 'verification-service');
  const answer = await fetch(`http://${HOST}:8080/?nonce=${'A'.repeat(43)}%3D`);
  assert.equal(answer.status, 200);
  assert.deepEqual(Object.keys((await answer.json()) as object), ['data']);
  await stopAll(services);
});
