import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type AddressInfo, connect } from 'node:net';
import { after, before, describe, it } from 'node:test';
import type { Issuer } from '@asterism/attestation/types';
import { qualifyingData } from '@asterism/attestation/variants/qemu-vtpm/binding';
import { createQemuVtpmIssuer } from '@asterism/attestation/variants/qemu-vtpm/issue';
import { QemuVtpmVerifier } from '@asterism/attestation/variants/qemu-vtpm/verifier';
import { fromBase64, toBase64Url, toUtf8 } from '@asterism/bytes/encoding';
import { AsterismError, BusyError, PolicyError, VerificationError } from '@asterism/errors/errors';
import { API } from '@asterism/rpc/gen/verify_pb';
import { plainClient } from '@asterism/rpc/plain-client';
import { PlainGrpcServer } from '@asterism/rpc/plain-server';
import { StatusError } from '@asterism/rpc/status';
import { RateLimiter } from '@asterism/runtime/rate-limiter';
import { type Swtpm, startSwtpm } from '@asterism/testkit/swtpm';
import { parseQuoteAttest } from '@asterism/tpm/structures';
import { withTpm } from '@asterism/tpm/with-tpm';
import { Registry } from 'prom-client';
import { Attester } from './attester.ts';
import { createHttpServer } from './http.ts';
import { verificationService } from './service.ts';

const HOST = '127.0.0.1';
const ENFORCED = [4, 8, 9, 11, 12, 13, 15];
const random = (length: number) => crypto.getRandomValues(new Uint8Array(length));

describe('VerificationService', { timeout: 120_000 }, () => {
  let tpm: Swtpm;
  let pcrs: ReadonlyMap<number, Uint8Array>;
  const stop: (() => unknown)[] = [];

  before(async () => {
    tpm = await startSwtpm();
    await withTpm(tpm.address, (commands) => commands.extendPcr(4, random(32)));
    pcrs = await withTpm(tpm.address, (commands) => commands.readPcrs(ENFORCED));
  });
  after(async () => {
    for (const end of stop.reverse()) await end();
    await tpm?.[Symbol.asyncDispose]();
  });

  const issuerOf = (maxPending = 64) =>
    createQemuVtpmIssuer({ tpmAddress: tpm.address, eventLogPath: undefined, maxPending });

  const policy = (change?: number) => ({
    measurements: new Map(
      ENFORCED.map((index) => [
        index,
        { expected: index === change ? new Uint8Array(32).fill(1) : pcrs.get(index)!, warnOnly: false },
      ]),
    ),
  });

  async function serve(options: { issuer?: Issuer; burst?: number } = {}) {
    const registry = new Registry();
    const limiter = new RateLimiter({ burst: options.burst ?? 1000, perSecond: 0.001 });
    const attester = new Attester(options.issuer ?? issuerOf(), limiter, registry);
    const grpc = new PlainGrpcServer({ maxMessageBytes: 128 * 1024 });
    grpc.addService(API, verificationService(attester));
    const { port } = await grpc.listen(0, HOST);
    const logged: unknown[] = [];
    const log = { warn: () => {}, error: (fields: object) => logged.push(fields) };
    const http = createHttpServer(attester, log).listen(0, HOST);
    await once(http, 'listening');
    const client = plainClient(API, { host: HOST, port });
    stop.push(async () => {
      client.close();
      http.closeAllConnections();
      http.close();
      await grpc.stop(100);
    });
    const httpPort = (http.address() as AddressInfo).port;
    const get = async (query: string, init?: RequestInit) => {
      const answer = await fetch(`http://${HOST}:${httpPort}/${query}`, init);
      return { status: answer.status, headers: answer.headers, body: (await answer.json()) as Answer };
    };
    return { client, get, httpPort, registry, logged };
  }

  it('gives fresh evidence over gRPC and over HTTP; it holds for this nonce and these PCRs only', async () => {
    const { client, get, registry } = await serve();
    const nonce = random(32);
    const { attestation } = await client.getAttestation({ nonce });
    const { status, headers, body } = await get(`?nonce=${encodeURIComponent(toBase64Url(nonce))}`);
    assert.equal(status, 200);
    assert.equal(headers.get('cache-control'), 'no-store');
    for (const document of [attestation, fromBase64(body.data ?? '')]) {
      const verdict = await new QemuVtpmVerifier(policy()).verify(document, nonce);
      assert.deepEqual(verdict.userData, toUtf8('VerifyService'));
      await assert.rejects(new QemuVtpmVerifier(policy()).verify(document, random(32)), VerificationError);
      await assert.rejects(new QemuVtpmVerifier(policy(4)).verify(document, nonce), PolicyError);
    }
    assert.match(
      await registry.metrics(),
      /asterism_verification_requests_total\{outcome="answered",reason=""\} 2/,
    );
  });

  it('takes nonces of 1 to 32 bytes: none that could pass for the evidence of a handshake', async () => {
    const { client, get } = await serve();
    for (const length of [1, 31, 32]) {
      const nonce = random(length);
      const { attestation } = await client.getAttestation({ nonce });
      const { quotes } = JSON.parse(new TextDecoder().decode(attestation)).Attestation;
      const { extraData } = parseQuoteAttest(fromBase64(quotes[0].quote));
      assert.deepEqual(extraData, await qualifyingData('v2.6', toUtf8('VerifyService'), nonce, undefined));
    }
    for (const length of [0, 33, 51, 64, 700]) {
      await assert.rejects(client.getAttestation({ nonce: random(length) }), (error: StatusError) => {
        assert.ok(error instanceof StatusError);
        assert.deepEqual([error.status, error.code], ['INVALID_ARGUMENT', 'ERR_NONCE_LENGTH']);
        return true;
      });
      const answer = await get(`?nonce=${toBase64Url(random(length))}`);
      assert.equal(answer.status, 400);
      assert.match(answer.body.error ?? '', /1 to 32/);
    }
  });

  it('answers nothing but GET with exactly one nonce in URL-safe base64', async () => {
    const { get, logged } = await serve();
    const good = toBase64Url(new Uint8Array(32).fill(0xfb));
    assert.ok(good.includes('-'));
    const wrong = [
      '',
      '?',
      '?Nonce=AA==',
      `?nonce=${good}&nonce=${good}`,
      '?nonce=',
      '?nonce=%00',
      `?nonce=${good.replaceAll('-', '%2B')}`,
      `?nonce=${good.replace('=', '')}`,
      '?nonce=AB==',
      '?nonce=ä',
      `?nonce=${good}&x=${'y'.repeat(1024)}`,
    ];
    for (const query of wrong) assert.equal((await get(query)).status, 400, query);
    for (const method of ['POST', 'PUT', 'DELETE', 'OPTIONS']) {
      const { status, headers } = await get(`?nonce=${good}`, { method });
      assert.deepEqual([status, headers.get('allow')], [405, 'GET']);
    }
    assert.equal((await get(`?nonce=${good}`)).status, 200);
    assert.deepEqual(logged, []);
  });

  it('refuses headers without end', async () => {
    const { httpPort } = await serve();
    const socket = connect(httpPort, HOST);
    socket.on('error', () => {});
    socket.write(`GET /?nonce=AA== HTTP/1.1\r\nhost: x\r\nx: ${'y'.repeat(9000)}\r\n\r\n`);
    let said = '';
    for await (const chunk of socket) said += chunk;
    assert.match(said, /^HTTP\/1\.1 431 /);
  });

  it('limits each address, over gRPC and HTTP together', async () => {
    const { client, get, registry } = await serve({ burst: 2 });
    const nonce = random(32);
    await client.getAttestation({ nonce });
    assert.equal((await get(`?nonce=${toBase64Url(nonce)}`)).status, 200);
    assert.equal((await get(`?nonce=${toBase64Url(nonce)}`)).status, 429);
    await assert.rejects(
      client.getAttestation({ nonce }),
      (error: StatusError) => error.status === 'RESOURCE_EXHAUSTED' && error.code === 'ERR_RATE_LIMIT',
    );
    assert.match(await registry.metrics(), /reason="ERR_RATE_LIMIT"\} 2/);
  });

  it('does not queue without bound for a busy TPM', async () => {
    const { client } = await serve({ issuer: issuerOf(2) });
    const results = await Promise.allSettled(
      Array.from({ length: 20 }, () => client.getAttestation({ nonce: random(32) })),
    );
    const refused = results.filter((result) => result.status === 'rejected');
    assert.ok(refused.length > 0 && refused.length < 20, `${refused.length} refused`);
    for (const { reason } of refused) assert.equal(reason.code, 'ERR_ISSUER_BUSY');
    await client.getAttestation({ nonce: random(32) });
  });

  it('tells nothing of unexpected errors, and which error of its own it was', async () => {
    const failing = (error: Error): Issuer => ({ ...issuerOf(), issue: () => Promise.reject(error) });
    const query = `?nonce=${toBase64Url(random(32))}`;
    for (const [error, status, said] of [
      [new Error('secret 4711'), 500, 'internal error'],
      [new AsterismError('ERR_TPM', 'the TPM does not answer'), 503, 'the TPM does not answer'],
      [new BusyError('ERR_ISSUER_BUSY', 'try again later'), 429, 'try again later'],
    ] as const) {
      const { get } = await serve({ issuer: failing(error) });
      const answer = await get(query);
      assert.deepEqual([answer.status, answer.body.error], [status, said]);
    }
  });

  it('does not keep the TPM busy for callers that are gone', async () => {
    let aborted: () => void;
    const seen = new Promise<void>((resolve) => {
      aborted = resolve;
    });
    const slow: Issuer = {
      ...issuerOf(),
      issue: (_userData, _nonce, signal) =>
        new Promise((_, reject) =>
          signal!.addEventListener('abort', () => {
            aborted();
            reject(signal!.reason);
          }),
        ),
    };
    const { get, client, logged } = await serve({ issuer: slow });
    const nonce = random(32);
    await assert.rejects(get(`?nonce=${toBase64Url(nonce)}`, { signal: AbortSignal.timeout(200) }));
    await seen;
    await assert.rejects(client.getAttestation({ nonce }, { timeoutMs: 200 }), { code: 'ERR_DEADLINE' });
    assert.deepEqual(logged, []);
  });
});

interface Answer {
  readonly data?: string;
  readonly error?: string;
}
