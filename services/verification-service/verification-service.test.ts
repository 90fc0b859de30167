import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { type AddressInfo, connect, createServer } from 'node:net';
import { after, before, describe, it } from 'node:test';
import { parseMeasurements } from '@asterism/attestation/measurements';
import type { Issuer } from '@asterism/attestation/types';
import { createQemuVtpmIssuer } from '@asterism/attestation/variants/qemu-vtpm/issue';
import { QemuVtpmVerifier } from '@asterism/attestation/variants/qemu-vtpm/verifier';
import { fromBase64, fromUtf8, toBase64Url, toHex } from '@asterism/bytes/encoding';
import { UnreachableError, VerificationError } from '@asterism/errors/errors';
import { API } from '@asterism/rpc/gen/verify_pb';
import { plainClient } from '@asterism/rpc/plain-client';
import { PlainGrpcServer } from '@asterism/rpc/plain-server';
import { StatusError } from '@asterism/rpc/status';
import { RateLimiter } from '@asterism/runtime/rate-limiter';
import { type Swtpm, startSwtpm } from '@asterism/testkit/swtpm';
import { temporaryFolder } from '@asterism/testkit/temporary-folder';
import { AddressedTpm } from '@asterism/tpm/machine';
import { Registry } from 'prom-client';
import { Attester } from './attester.ts';
import { createHttpServer } from './http.ts';
import { LIMITS, verificationService } from './service.ts';

const HOST = '127.0.0.1';

describe('VerificationService on a real TPM', { timeout: 120_000 }, () => {
  let tpm: Swtpm;
  let verifier: QemuVtpmVerifier;
  const stop: (() => unknown)[] = [];

  before(async () => {
    tpm = await startSwtpm();
    stop.push(() => tpm[Symbol.asyncDispose]());
    const pcrs = await new AddressedTpm(tpm.address, 'ecc-p256').readPcrs();
    const pcr4 = { expected: toHex(pcrs.get(4)!), warnOnly: false };
    verifier = new QemuVtpmVerifier({ measurements: parseMeasurements({ 4: pcr4 }) });
  });
  after(async () => {
    for (const end of stop.reverse()) await end();
  });

  async function serve(options: { burst?: number; maxPending?: number; issuer?: Issuer } = {}) {
    const { maxPending = 32, burst = 1000 } = options;
    const issuer =
      options.issuer ??
      createQemuVtpmIssuer({ tpmAddress: tpm.address, eventLogPath: undefined, maxPending });
    const registry = new Registry();
    const logged: object[] = [];
    const log = { warn: () => {}, error: (fields: object) => logged.push(fields) };
    const attester = new Attester(issuer, new RateLimiter({ burst, perSecond: 0.001 }), registry);
    const grpc = new PlainGrpcServer({ ...LIMITS, log });
    grpc.addService(API, verificationService(attester));
    const { port } = await grpc.listen(0, HOST);
    const http = createHttpServer(attester, log);
    await new Promise<void>((resolve) => http.listen(0, HOST, resolve));
    const client = plainClient(API, { host: HOST, port });
    const httpPort = (http.address() as AddressInfo).port;
    stop.push(async () => {
      client.close();
      http.close();
      http.closeAllConnections();
      await grpc.stop(100);
    });
    const get = async (path: string, init?: RequestInit) => {
      const answer = await fetch(`http://${HOST}:${httpPort}${path}`, init);
      const text = await answer.text();
      return {
        status: answer.status,
        headers: answer.headers,
        text,
        json: text === '' ? {} : JSON.parse(text),
      };
    };
    return { client, get, httpPort, registry, logged };
  }

  async function check(document: Uint8Array, nonce: Uint8Array): Promise<void> {
    const { userData } = await verifier.verify(document, nonce);
    assert.equal(fromUtf8(userData), 'VerifyService');
  }

  it('refuses nonces that are missing, doubled, empty, long or no base64', async () => {
    const { client, get, registry } = await serve();
    for (const path of [
      '/',
      '/?',
      '/?nonce',
      '/?nonce=',
      '/?nonce=not-base-64',
      '/?nonce=AAAA&nonce=AAAA',
      '/?Nonce=AAAA',
      '/?nonce=AA%3D%3D%3D',
      `/?nonce=${toBase64Url(new Uint8Array(33))}`,
      `/?nonce=${'A'.repeat(2000)}`,
    ]) {
      const { status, json } = await get(path);
      assert.equal(status, 400, path);
      assert.ok(json.error.length > 0);
    }
    for (const nonce of [new Uint8Array(), new Uint8Array(33), new Uint8Array(1000)]) {
      await assert.rejects(
        client.getAttestation({ nonce }),
        (error: StatusError) => error instanceof StatusError && error.status === 'INVALID_ARGUMENT',
      );
    }
    await assert.rejects(client.getAttestation({ nonce: new Uint8Array(60_000) }), {
      status: 'RESOURCE_EXHAUSTED',
    });
    assert.match(
      await registry.metrics(),
      /requests_total\{outcome="refused",reason="ERR_NONCE_LENGTH"\} [1-9]/,
    );
  });

  it('answers nothing but GET', async () => {
    const { get } = await serve();
    for (const method of ['POST', 'PUT', 'DELETE', 'OPTIONS', 'HEAD']) {
      const { status, headers } = await get('/?nonce=AAAA', { method });
      assert.equal(status, 405, method);
      assert.equal(headers.get('allow'), 'GET');
    }
  });

  it('gives evidence that verifies for this nonce and no other, by both ways', async () => {
    const { client, get } = await serve();
    for (const nonce of [new Uint8Array(randomBytes(32)), new Uint8Array(32)]) {
      const { attestation } = await client.getAttestation({ nonce });
      await check(attestation, nonce);
      const { status, headers, text, json } = await get(
        `/any/path?nonce=${encodeURIComponent(toBase64Url(nonce))}`,
      );
      assert.equal(status, 200);
      assert.equal(headers.get('content-type'), 'application/json');
      assert.equal(headers.get('cache-control'), 'no-store');
      assert.deepEqual(Object.keys(json), ['data']);
      assert.ok(text.endsWith('\n'));
      await check(fromBase64(json.data), nonce);
      await assert.rejects(check(attestation, nonce.with(31, nonce[31]! ^ 1)), VerificationError);
    }
  });

  it('answers short nonces as v2.6 does: how fresh the evidence is, is the caller to judge', async () => {
    const { get } = await serve();
    const { status, json } = await get(`/?nonce=${toBase64Url(new TextEncoder().encode('nonce'))}`);
    assert.equal(status, 200);
    const document = JSON.parse(fromUtf8(fromBase64(json.data)));
    assert.equal(fromUtf8(fromBase64(document.UserData)), 'VerifyService');
  });

  it('limits each address, over both ways together', async () => {
    const { client, get } = await serve({ burst: 4 });
    const nonce = new Uint8Array(32);
    for (let i = 0; i < 2; i++) {
      await client.getAttestation({ nonce });
      assert.equal((await get(`/?nonce=${toBase64Url(nonce)}`)).status, 200);
    }
    assert.equal((await get(`/?nonce=${toBase64Url(nonce)}`)).status, 429);
    await assert.rejects(
      client.getAttestation({ nonce }),
      (error: StatusError) => error instanceof StatusError && error.status === 'RESOURCE_EXHAUSTED',
    );
  });

  it('lets only so many wait for the TPM', async () => {
    const { client } = await serve({ maxPending: 3 });
    const results = await Promise.allSettled(
      Array.from({ length: 30 }, () => client.getAttestation({ nonce: new Uint8Array(32) })),
    );
    const refused = results.filter((result) => result.status === 'rejected');
    assert.ok(refused.length > 0 && refused.length < 30, `${refused.length} refused`);
    for (const { reason } of refused)
      assert.equal(`${reason.status} ${reason.code}`, 'RESOURCE_EXHAUSTED ERR_ISSUER_BUSY', reason.message);
    await client.getAttestation({ nonce: new Uint8Array(32) });
  });

  it('a TPM that is not there: the caller learns that, nothing else; the log says why', async () => {
    const gone = createQemuVtpmIssuer({ tpmAddress: 'swtpm:/nonexistent/sock', eventLogPath: undefined });
    const { get, logged } = await serve({ issuer: gone });
    const { status } = await get('/?nonce=AAAA');
    assert.equal(status, 503);
    assert.equal(logged.length, 1);
    const crash = await serve({
      issuer: { variant: 'x', oid: '1.2', issue: () => Promise.reject(new TypeError('secret 4711')) },
    });
    const answer = await crash.get('/?nonce=AAAA');
    assert.equal(answer.status, 500);
    assert.doesNotMatch(answer.text, /4711/);
  });

  it('drops connections that say nothing of HTTP, and goes on', async () => {
    const { httpPort, get } = await serve();
    await new Promise<void>((resolve) => {
      const socket = connect(httpPort, HOST, () => socket.write('\0'.repeat(100)));
      socket.on('error', () => {});
      socket.once('close', () => resolve());
      socket.resume();
    });
    assert.equal((await get('/?nonce=AAAA')).status, 200);
  });

  it('does not keep the TPM busy for callers that are gone', async () => {
    const { promise: aborted, resolve: abort } = Promise.withResolvers<void>();
    const slow: Issuer = {
      variant: 'x',
      oid: '1.2',
      issue: (_userData, _nonce, signal) =>
        new Promise((_, reject) => {
          signal?.addEventListener('abort', () => {
            abort();
            reject(signal.reason);
          });
        }),
    };
    const { get, client, logged } = await serve({ issuer: slow });
    await assert.rejects(get('/?nonce=AAAA', { signal: AbortSignal.timeout(200) }));
    await aborted;
    await assert.rejects(client.getAttestation({ nonce: new Uint8Array(32) }, { timeoutMs: 200 }), {
      code: 'ERR_DEADLINE',
    });
    assert.deepEqual(logged, []);
  });

  it('a TPM that says nothing: the caller is told so within 15 s', async () => {
    await using folder = await temporaryFolder();
    const silent = createServer().listen(folder.file('tpm.sock'));
    await once(silent, 'listening');
    const tpmAddress = `swtpm:${folder.file('tpm.sock')}`;
    const { get, client, logged } = await serve({
      issuer: createQemuVtpmIssuer({ tpmAddress, eventLogPath: undefined }),
    });
    const started = performance.now();
    const [{ status }] = await Promise.all([
      get('/?nonce=AAAA'),
      assert.rejects(client.getAttestation({ nonce: new Uint8Array(32) }), UnreachableError),
    ]);
    assert.equal(status, 503);
    assert.ok(performance.now() - started < 15_000);
    assert.equal(logged.length, 1);
    silent.close();
  });
});
