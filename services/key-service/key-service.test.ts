import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { appendFile, mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { toHex } from '@asterism/bytes/encoding';
import { UnreachableError } from '@asterism/errors/errors';
import { KmsUnavailableError } from '@asterism/kms/errors';
import { MemoryKek, MemoryStore } from '@asterism/kms/memory.fixture';
import { storedKeys } from '@asterism/kms/stored-keys';
import type { KubernetesApi } from '@asterism/kubernetes/api';
import { ClusterCa } from '@asterism/kubernetes/ca';
import type { Client } from '@asterism/rpc/client';
import { API } from '@asterism/rpc/gen/keyservice_pb';
import { plainClient } from '@asterism/rpc/plain-client';
import { StatusError } from '@asterism/rpc/status';
import { tlsClient } from '@asterism/rpc/tls-client';
import { TlsGrpcServer } from '@asterism/rpc/tls-server';
import { AuditLog, verifyAuditLog } from '@asterism/runtime/audit-log';
import { RateLimiter } from '@asterism/runtime/rate-limiter';
import { clusterHomes } from '@asterism/testkit/key-service';
import { type Kube, startKube } from '@asterism/testkit/kube';
import { type TemporaryFolder, temporaryFolder } from '@asterism/testkit/temporary-folder';
import { Registry } from 'prom-client';
import { Callers } from './callers.ts';
import { KeyHomes } from './key-homes.ts';
import { keyMetrics } from './metrics.ts';
import { checkScope, defaultScopes, type Scopes } from './scopes.ts';
import { keyService, LIMITS } from './service.ts';

const NAME = 'key-service.kube-system.svc';
const DISK = '00000000-0000-0000-0000-000000000000';
const MACHINE = 'worker-0';

describe('KeyService over TLS, its callers judged by a real API server', { timeout: 240_000 }, () => {
  let kube: Kube;
  let folder: TemporaryFolder;
  let joinToken: string;
  /** Questions to the API server. */
  let reviews = 0;
  let clock = 0;
  const stop: (() => unknown)[] = [];

  before(async () => {
    kube = await startKube();
    folder = await temporaryFolder();
    const deploy = join(import.meta.dirname, '../../deploy');
    for (const name of ['key-service', 'join-service', 'verification-service'])
      await kube.apply(await readFile(join(deploy, name, `${name}.yaml`), 'utf8'));
    joinToken = await kube.tokenOf('join-service', 'key-service');
    const path = '/api/v1/namespaces/kube-system/configmaps';
    await kube.create(path, { metadata: { name: `disk-${DISK}` }, data: { instanceName: MACHINE } });
  });
  after(async () => {
    for (const end of stop.reverse()) await end();
    await kube?.[Symbol.asyncDispose]();
    await folder?.[Symbol.asyncDispose]();
  });

  let services = 0;
  async function serve(
    limits: {
      calls?: number;
      reviews?: number;
      folder?: string;
      homes?: (registry: Registry) => KeyHomes;
    } = {},
  ) {
    const path = join(limits.folder ?? folder.path, `audit-${services++}.log`);
    const audit = await AuditLog.open(path);
    const registry = new Registry();
    const inner = await kube.as('key-service');
    const api: KubernetesApi = {
      call: (...args) => {
        reviews++;
        return inner.call(...args);
      },
    };
    const ca = await ClusterCa.load(kube.pki);
    const server = new TlsGrpcServer({ ...(await ca.servingCertificate([NAME], 3_600_000)), ...LIMITS });
    const limiter = (burst: number) => new RateLimiter({ burst, perSecond: 0.001 });
    server.addService(
      API,
      keyService({
        // key-vectors.md section 1, "zero"
        homes:
          limits.homes?.(registry) ??
          (await clusterHomes({ key: new Uint8Array(32), salt: new Uint8Array(32) })),
        callers: new Callers({ api, reviews: limiter(limits.reviews ?? 1000), now: () => clock }),
        scopes: defaultScopes(inner),
        limiter: limiter(limits.calls ?? 1000),
        audit,
        registry,
      }),
    );
    const { port } = await server.listen(0, '127.0.0.1');
    stop.push(async () => {
      await server.stop(100);
      await audit.close();
    });
    const client = tlsClient(API, { host: '127.0.0.1', port, ca: kube.ca, serverName: NAME });
    stop.push(() => client.close());
    const events = async () =>
      (await readFile(path, 'utf8'))
        .trimEnd()
        .split('\n')
        .filter((line) => line !== '')
        .map((line) => JSON.parse(line) as Record<string, unknown>);
    return { server, port, client, path, audit, registry, events };
  }

  const ask = (
    client: Client<typeof API>,
    authorization: string | undefined,
    dataKeyId: string = DISK,
    length = 32,
    more: { onBehalfOf?: string; generation?: number } = {},
  ) =>
    client.getDataKey(
      { dataKeyId, length, onBehalfOf: MACHINE, ...more },
      authorization === undefined ? {} : { headers: { authorization } },
    );

  const refusal = (status: string, code: string) => (error: StatusError) => {
    assert.ok(error instanceof StatusError, String(error));
    assert.equal(error.status, status);
    assert.equal(error.code, code);
    return true;
  };

  it('refuses callers without identity, and writes that down', async () => {
    const { client, events } = await serve();
    const wrong: [string, string | undefined][] = [
      ['no header', undefined],
      ['an empty one', ''],
      ['basic authentication', `Basic ${joinToken}`],
      ['garbage', 'Bearer garbage'],
      ['no token at all', 'Bearer '],
      ['a long one', `Bearer ${'x'.repeat(8193)}`],
      ['a token with a changed signature', `Bearer ${joinToken.slice(0, -4)}AAAA`],
      ['a token without signature', `Bearer ${joinToken.split('.').slice(0, 2).join('.')}.`],
      ["the API server's audience", `Bearer ${await kube.tokenOf('join-service')}`],
      ['another audience', `Bearer ${await kube.tokenOf('join-service', 'key-service.evil')}`],
    ];
    for (const [what, authorization] of wrong)
      await assert.rejects(ask(client, authorization), refusal('UNAUTHENTICATED', 'ERR_NO_IDENTITY'), what);
    const lines = await events();
    assert.ok(lines.every(({ outcome, caller }) => outcome === 'refused' && caller === 'unknown'));
    // All from one address: 1, 2, 4, 8 of ten.
    assert.deepEqual(
      lines.map(({ times }) => times),
      [1, 2, 4, 8],
    );
  });

  it('a service account without scope gets nothing; one with scope nothing beyond it', async () => {
    const { client, events } = await serve();
    const other = `Bearer ${await kube.tokenOf('verification-service', 'key-service')}`;
    await assert.rejects(ask(client, other), refusal('PERMISSION_DENIED', 'ERR_SCOPE'));
    const beyond = [
      'clusterID',
      'ca_emergency_ssh',
      `${DISK}x`,
      `${DISK}.0`,
      `${DISK}.01`,
      `${DISK}.1.1`,
      ` ${DISK}`,
      DISK.replaceAll('0', 'A'),
      `key-${DISK}`,
      `${DISK}\n`,
      'measurementSecret2',
      '../measurementSecret',
    ];
    for (const id of beyond)
      await assert.rejects(
        ask(client, `Bearer ${joinToken}`, id),
        refusal('PERMISSION_DENIED', 'ERR_SCOPE'),
        id,
      );
    const lines = await events();
    assert.equal(lines[0]!.caller, 'system:serviceaccount:kube-system:verification-service');
    assert.equal(lines[1]!.keyId, 'clusterID');
    assert.deepEqual(
      lines.map(({ times }) => times),
      [1, 1, 2, 4, 8],
    );
  });

  it('a caller that is refused again and again does not fill the disk, and nobody’s refusals hide another’s', async () => {
    const { client, events, registry } = await serve({ calls: 100_000 });
    const other = `Bearer ${await kube.tokenOf('verification-service', 'key-service')}`;
    const rounds = 300;
    for (let i = 0; i < rounds; i++) {
      await Promise.all([
        assert.rejects(ask(client, other), refusal('PERMISSION_DENIED', 'ERR_SCOPE')),
        assert.rejects(ask(client, other, 'x'.repeat(129)), refusal('INVALID_ARGUMENT', 'ERR_KEY_ID')),
        assert.rejects(ask(client, other, DISK, 97), refusal('INVALID_ARGUMENT', 'ERR_KEY_LENGTH')),
      ]);
    }
    await assert.rejects(
      ask(client, `Bearer ${joinToken}`, 'clusterID'),
      refusal('PERMISSION_DENIED', 'ERR_SCOPE'),
    );
    const lines = await events();
    // 1, 2, 4 ... 256 for each reason, and the one of the other caller.
    assert.equal(lines.length, 3 * 9 + 1);
    assert.equal(lines.at(-1)!.caller, 'system:serviceaccount:kube-system:join-service');
    assert.match(await registry.metrics(), new RegExp(`outcome="refused",reason="ERR_KEY_ID"\\} ${rounds}`));
  });

  it('gives the key of a disk for the machine that it is bound to, and for no other', async () => {
    const { client, events } = await serve();
    const bearer = `Bearer ${joinToken}`;
    const free = '00000000-0000-0000-0000-000000000001';
    const wrong: [string, string][] = [
      [DISK, ''],
      [DISK, 'worker-1'],
      [DISK, `${MACHINE} `],
      [`${DISK}.1`, 'worker-1'],
      [free, MACHINE],
      [free, ''],
    ];
    for (const [id, onBehalfOf] of wrong)
      await assert.rejects(
        ask(client, bearer, id, 32, { onBehalfOf }),
        refusal('PERMISSION_DENIED', 'ERR_SCOPE'),
      );
    for (const id of [DISK, `${DISK}.1`, `${DISK}.20`]) await ask(client, bearer, id);
    assert.deepEqual(
      (await events()).map(({ keyId, onBehalfOf, outcome }) => [keyId, onBehalfOf, outcome]).at(-1),
      [`${DISK}.20`, MACHINE, 'granted'],
    );
  });

  it('gives no key of a generation that there is not', async () => {
    const { client } = await serve();
    const bearer = `Bearer ${joinToken}`;
    assert.equal((await ask(client, bearer, DISK, 32, { generation: 1 })).generation, 1);
    await assert.rejects(
      ask(client, bearer, DISK, 32, { generation: 2 }),
      refusal('FAILED_PRECONDITION', 'ERR_KEY_GENERATION'),
    );
  });

  it('refuses lengths and ids out of bounds', async () => {
    const { client } = await serve();
    const bearer = `Bearer ${joinToken}`;
    for (const length of [0, 97, 8160, 0xffff_ffff])
      await assert.rejects(ask(client, bearer, DISK, length), refusal('INVALID_ARGUMENT', 'ERR_KEY_LENGTH'));
    for (const id of ['', 'x'.repeat(129)])
      await assert.rejects(ask(client, bearer, id), refusal('INVALID_ARGUMENT', 'ERR_KEY_ID'));
  });

  it('gives the derived key, asks the API server once, and records who got which', async () => {
    const { client, events, path, registry } = await serve();
    const before = reviews;
    const keys = await Promise.all(Array.from({ length: 20 }, () => ask(client, `Bearer ${joinToken}`)));
    const expected = '2b5c829f691bfd4232f8aac464bccc07e605c7c8e82cbca09837e86d0b6d0665';
    assert.ok(keys.every(({ dataKey }) => toHex(dataKey) === expected));
    const secret = await ask(client, `Bearer ${joinToken}`, 'measurementSecret');
    assert.equal(secret.dataKey.length, 32);
    assert.equal(reviews - before, 1);

    assert.equal((await verifyAuditLog(path)).lines, 21);
    const { time, previous, hash, seq, ...line } = (await events())[20]!;
    assert.ok(time && previous && hash && seq === 20);
    assert.deepEqual(line, {
      event: 'get-data-key',
      outcome: 'granted',
      caller: 'system:serviceaccount:kube-system:join-service',
      address: '127.0.0.1',
      keyId: 'measurementSecret',
      onBehalfOf: MACHINE,
      length: 32,
      generation: 1,
    });
    const recorded = await readFile(path);
    for (const { dataKey } of [...keys, secret]) {
      assert.equal(recorded.includes(toHex(dataKey)), false);
      assert.equal(recorded.includes(Buffer.from(dataKey).toString('base64')), false);
    }
    assert.equal(recorded.includes(joinToken), false);
    assert.match(await registry.metrics(), /asterism_key_requests_total\{outcome="granted",reason=""\} 21/);
  });

  it('a token that was taken back counts no longer than the cache', async () => {
    const { client } = await serve();
    const name = 'short-lived';
    const path = '/api/v1/namespaces/kube-system/serviceaccounts';
    await kube.admin.call('POST', path, { metadata: { name } });
    const bearer = `Bearer ${await kube.tokenOf(name, 'key-service')}`;
    await assert.rejects(ask(client, bearer), refusal('PERMISSION_DENIED', 'ERR_SCOPE'));
    await kube.admin.call('DELETE', `${path}/${name}`);
    clock += 29_000;
    await assert.rejects(ask(client, bearer), refusal('PERMISSION_DENIED', 'ERR_SCOPE'));
    clock += 1001;
    // The API server has a cache of its own, of 10 s.
    const limit = Date.now() + 20_000;
    for (;;) {
      const error = await ask(client, bearer).then(
        () => assert.fail('a key was given'),
        (failure: StatusError) => failure,
      );
      if (error.status === 'UNAUTHENTICATED') break;
      assert.ok(Date.now() < limit, 'the deleted account is still known');
      clock += 30_001;
      await new Promise((resolve) => setTimeout(resolve, 500));
    }
  });

  it('limits each caller, and what an address may have judged', async () => {
    const { client, events } = await serve({ calls: 3, reviews: 2 });
    for (let i = 0; i < 3; i++) await ask(client, `Bearer ${joinToken}`);
    for (let i = 0; i < 8; i++)
      await assert.rejects(
        ask(client, `Bearer ${joinToken}`),
        refusal('RESOURCE_EXHAUSTED', 'ERR_RATE_LIMIT'),
      );
    const before = reviews;
    await assert.rejects(ask(client, 'Bearer guess'), refusal('UNAUTHENTICATED', 'ERR_NO_IDENTITY'));
    for (let i = 0; i < 20; i++)
      await assert.rejects(ask(client, `Bearer guess${i}`), refusal('RESOURCE_EXHAUSTED', 'ERR_RATE_LIMIT'));
    assert.equal(reviews - before, 1);
    // 3 grants; 1, 2, 4, 8 of a caller's 8; one without identity; 1, 2, 4, 8, 16 of an address's 20.
    assert.equal((await events()).length, 3 + 4 + 1 + 5);
  });

  it('gives nothing when it cannot be recorded', async () => {
    const { client, path, audit } = await serve();
    await ask(client, `Bearer ${joinToken}`);
    await appendFile(path, 'x');
    for (let i = 0; i < 2; i++)
      await assert.rejects(
        ask(client, `Bearer ${joinToken}`),
        (error: StatusError) => error instanceof StatusError && error.code === 'ERR_AUDIT_LOG',
      );
    assert.match(audit.failure?.message ?? '', /nothing is granted unrecorded/);
  });

  it('gives nothing when the disk is full', {
    skip: process.getuid?.() !== 0 && 'mounting needs root',
  }, async () => {
    const small = folder.file('small-disk');
    await mkdir(small);
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', small]);
    stop.push(() => execFileSync('umount', [small]));
    const { client, audit, path } = await serve({ folder: small });
    await ask(client, `Bearer ${joinToken}`);
    await writeFile(join(small, 'filler'), new Uint8Array(1 << 17)).catch(() => {});
    const answers = Array.from({ length: 200 }, () => ask(client, `Bearer ${joinToken}`));
    const given = (await Promise.allSettled(answers)).filter(({ status }) => status === 'fulfilled').length;
    assert.match(audit.failure?.message ?? '', /nothing is granted unrecorded/);
    await assert.rejects(ask(client, `Bearer ${joinToken}`), { code: 'ERR_AUDIT_LOG' });
    // What fitted in the last block of the file was given; every key that was is on the disk.
    const lines = (await readFile(path, 'utf8')).split('\n').filter((line) => line.includes('granted'));
    assert.ok(lines.length >= 1 + given, `${lines.length} lines of ${1 + given}`);
  });

  it('where the KMS is down known keys are given, others are UNAVAILABLE, and metrics tell', async () => {
    const kek = new MemoryKek('kek');
    const store = new MemoryStore();
    const cluster = 'cd'.repeat(32);
    let homes: KeyHomes | undefined;
    const { client, events, registry } = await serve({
      homes(registry) {
        const { observer } = keyMetrics(registry, () => homes!);
        const retry = { tries: 2, deadlineMs: 1000 };
        homes = new KeyHomes({
          log: console,
          open: async () => storedKeys({ kek, store, clusterId: cluster, generation: 3, observer, retry }),
        });
        return homes;
      },
    });
    await assert.rejects(
      ask(client, `Bearer ${joinToken}`),
      refusal('FAILED_PRECONDITION', 'ERR_KEY_CONFIGURATION'),
    );
    const kmsUri = `kms://vault?address=https%3A%2F%2Fbao&keyName=k&clusterID=${cluster}&generation=3`;
    await homes!.configure({ homes: [{ kmsUri, storageUri: 'storage://kubernetes' }] }, '4711');
    const known = await ask(client, `Bearer ${joinToken}`);
    assert.equal(known.generation, 3);
    assert.match(Buffer.from(known.envelope).toString(), /"generation":3/);
    for (const code of ['ERR_KMS_UNAVAILABLE', 'ERR_KMS_THROTTLED'] as const) {
      kek.before = async () => {
        throw new KmsUnavailableError(code, 'not now', { retryAfterMs: 1 });
      };
      assert.deepEqual((await ask(client, `Bearer ${joinToken}`)).dataKey, known.dataKey);
      await assert.rejects(ask(client, `Bearer ${joinToken}`, 'measurementSecret'), (error) => {
        assert.ok(error instanceof UnreachableError, String(error));
        assert.equal(error.code, code);
        return true;
      });
    }
    assert.equal(store.objects.size, 1, 'no key was made that nobody got');
    const reasons = (await events()).map(({ outcome, reason }) => [outcome, reason]);
    assert.deepEqual(reasons, [
      ['refused', 'ERR_KEY_CONFIGURATION'],
      ['granted', undefined],
      ['granted', undefined],
      ['refused', 'ERR_KMS_UNAVAILABLE'],
      ['granted', undefined],
      ['refused', 'ERR_KMS_THROTTLED'],
    ]);
    const metrics = await registry.metrics();
    for (const line of [
      'asterism_key_generation{version="4711"} 3',
      'asterism_key_cache_total{outcome="hit"} 2',
      'asterism_key_cache_total{outcome="miss"} 3',
      'asterism_key_requests_total{outcome="refused",reason="ERR_KMS_UNAVAILABLE"} 1',
    ])
      assert.ok(metrics.includes(line), `${line} in ${metrics}`);
    assert.match(metrics, /exchange_seconds_count\{with="kms",outcome="failed",code="ERR_KMS_THROTTLED"\} 2/);
    assert.ok(
      !metrics.includes('vault') && !metrics.includes(DISK),
      'neither names of keys nor of their home',
    );
  });

  it('the node of a pod is known to scopes, by the word of the API server', async () => {
    const pods = '/api/v1/namespaces/kube-system/pods';
    await kube.create('/api/v1/nodes', { metadata: { name: 'cp-7' } });
    await kube.create(pods, {
      metadata: { name: 'join-service-x' },
      spec: {
        ...{ nodeName: 'cp-7', serviceAccountName: 'join-service', automountServiceAccountToken: false },
        containers: [{ name: 'x', image: 'x' }],
      },
    });
    const { metadata } = await kube.admin.call<{ metadata: { name: string; uid: string } }>(
      'GET',
      `${pods}/join-service-x`,
    );
    const { status } = await kube.admin.call<{ status: { token: string } }>(
      'POST',
      '/api/v1/namespaces/kube-system/serviceaccounts/join-service/token',
      {
        spec: {
          audiences: ['key-service'],
          boundObjectRef: { kind: 'Pod', apiVersion: 'v1', name: metadata.name, uid: metadata.uid },
        },
      },
    );
    const callers = new Callers({
      api: await kube.as('key-service'),
      reviews: new RateLimiter({ burst: 10, perSecond: 1 }),
    });
    const account = 'system:serviceaccount:kube-system:join-service';
    assert.deepEqual(await callers.identify(`Bearer ${status.token}`, '10.0.0.1'), { account, node: 'cp-7' });
    assert.deepEqual(await callers.identify(`Bearer ${joinToken}`, '10.0.0.1'), { account, node: undefined });
    // A scope such as that of a volume driver may go by it.
    const seen: (string | undefined)[] = [];
    const scopes: Scopes = new Map([
      [account, [{ ids: /^volume-1$/, check: async ({ caller }) => void seen.push(caller.node) }]],
    ]);
    const caller = await callers.identify(`Bearer ${status.token}`, '10.0.0.1');
    await checkScope(scopes, { caller, id: 'volume-1', onBehalfOf: '' });
    assert.deepEqual(seen, ['cp-7']);
  });

  it('speaks TLS with a certificate of the cluster only', async () => {
    const { port, server } = await serve();
    const target = { host: '127.0.0.1', port, callTimeoutMs: 3000 };
    const plain = plainClient(API, target);
    await assert.rejects(ask(plain, `Bearer ${joinToken}`), UnreachableError);
    plain.close();
    const frontProxy = await readFile(join(kube.pki, 'front-proxy-ca.crt'), 'utf8');
    for (const options of [
      { ...target, ca: kube.ca, serverName: 'join-service.kube-system.svc' },
      { ...target, ca: frontProxy, serverName: NAME },
    ]) {
      const client = tlsClient(API, options);
      await assert.rejects(ask(client, `Bearer ${joinToken}`), UnreachableError);
      client.close();
    }
    // Another certificate for later connections.
    const fresh = await (await ClusterCa.load(kube.pki)).servingCertificate([NAME], 3_600_000);
    assert.ok(new X509Certificate(fresh.cert).checkPrivateKey(createPrivateKey(fresh.key)));
    server.setCertificate(fresh.cert, fresh.key);
    const client = tlsClient(API, { ...target, ca: kube.ca, serverName: NAME });
    assert.equal((await ask(client, `Bearer ${joinToken}`)).dataKey.length, 32);
    client.close();
  });
});
