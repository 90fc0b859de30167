import assert from 'node:assert/strict';
import { test } from 'node:test';
import { VerificationError } from '@asterism/errors/errors';
import { fakeIssuer, fakeVerifier } from '@asterism/testkit/fake-attestation';
import { buildGoPeer, GoServer, goClient } from '@asterism/testkit/go-peer';
import { atlsClient } from './atls-client.ts';
import { AtlsGrpcServer } from './atls-server.ts';
import { API } from './gen/keyservice_pb.ts';

const OID = '1.3.9900.1';
const built = await buildGoPeer('grpc-peer');
const program = 'program' in built ? built.program : '';
const options = { timeout: 60_000, ...('skip' in built ? { skip: built.skip } : {}) };
const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);

for (const mutual of [false, true]) {
  const kind = mutual ? 'mutual' : 'one way';

  test(`grpc-go client, ${kind}`, options, async () => {
    const server = new AtlsGrpcServer({
      issuer: fakeIssuer({ length: 8192 }),
      ...(mutual && { verifiers: [fakeVerifier()] }),
    });
    server.addService(API, {
      getDataKey: async ({ dataKeyId }, { peer }) => ({
        dataKey: new TextEncoder().encode(`${dataKeyId} ${peer.verdict?.variant}`),
      }),
    });
    const { port } = await server.listen(0, '127.0.0.1');
    const args = ['-address', `127.0.0.1:${port}`, '-validate', OID, '-calls', '20'];
    const report = await goClient(program, mutual ? [...args, '-issue', OID, '-length', '8192'] : args);
    assert.deepEqual(report, { peer: 'machine', answer: `go-19 ${mutual ? 'fake' : undefined}`, calls: 20 });
    await server.stop(100);
  });

  test(`grpc-go server, ${kind}`, options, async () => {
    const args = ['-issue', OID, '-length', '8192'];
    const server = await GoServer.start(program, mutual ? [...args, '-validate', OID] : args);
    const client = atlsClient(API, {
      host: '127.0.0.1',
      port: server.port,
      verifiers: [fakeVerifier()],
      ...(mutual && { issuer: fakeIssuer({ machine: 'node' }) }),
    });
    assert.equal((await client.peer())?.variant, 'fake');
    for (let i = 0; i < 20; i++) {
      const { dataKey } = await client.getDataKey({ dataKeyId: `${i}` });
      assert.equal(text(dataKey), `go:${i}`);
    }
    if (mutual) assert.deepEqual(await server.next(), { peer: 'node' });
    client.close();
    server.stop();
  });
}

test('a grpc-go client whose evidence is refused is turned away', options, async () => {
  const server = new AtlsGrpcServer({
    issuer: fakeIssuer(),
    verifiers: [fakeVerifier({ oid: '1.3.9900.2' })],
  });
  const { port } = await server.listen(0, '127.0.0.1');
  const { error, answer } = await goClient(program, ['-address', `127.0.0.1:${port}`, '-issue', OID]);
  assert.equal(answer, undefined);
  assert.match(error ?? '', /code = Unavailable/);
  await server.stop(100);
});

test('a grpc-go server that refuses our evidence: the client says so', options, async () => {
  const server = await GoServer.start(program, ['-issue', OID, '-validate', '1.3.9900.2']);
  const client = atlsClient(API, {
    host: '127.0.0.1',
    port: server.port,
    verifiers: [fakeVerifier()],
    issuer: fakeIssuer(),
  });
  await assert.rejects(client.getDataKey({}), (error: Error) => {
    assert.ok(error instanceof VerificationError, `${error}`);
    assert.match(error.message, /refused this machine's evidence/);
    return true;
  });
  client.close();
  server.stop();
});
