import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Verdict } from '@asterism/attestation/types';
import { fakeIssuer, fakeVerifier } from '@asterism/testkit/fake-attestation';
import { connectAtls } from './client.ts';
import { createAtlsServer } from './server.ts';

test('mutual: both verified, data both ways', async () => {
  let peer: Verdict | undefined;
  const server = createAtlsServer({
    issuer: fakeIssuer({ length: 1024 }),
    verifiers: [fakeVerifier()],
    onRefused: (e) => console.log(e),
    onConnection: (socket, verdict) => {
      peer = verdict;
      socket.pipe(socket);
    },
  });
  const { port } = await server.listen(0, '127.0.0.1');
  const c = await connectAtls({
    host: '127.0.0.1',
    port,
    issuer: fakeIssuer({ length: 40000, machine: 'm7' }),
    verifiers: [fakeVerifier()],
    timeoutMs: 2000,
  });
  c.socket.write('hello');
  const [data] = await new Promise<Buffer[]>((resolve) => c.socket.once('data', (d) => resolve([d])));
  assert.equal(data?.toString(), 'hello');
  assert.equal(peer?.variant, 'fake');
  c.socket.destroy();
  await server.close();
});
