import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Verdict } from '@asterism/attestation/types';
import { fakeIssuer, fakeVerifier } from '@asterism/testkit/fake-attestation';
import { connectAtls } from './client.ts';
import { createAtlsServer } from './server.ts';

test('one way: verified peer, data both ways', async () => {
  const server = createAtlsServer({
    issuer: fakeIssuer({ length: 1024 }),
    onConnection: (socket, peer) => {
      assert.equal(peer, undefined);
      socket.pipe(socket);
    },
  });
  const { port } = await server.listen(0, '127.0.0.1');
  const { socket, peer } = await connectAtls({
    host: '127.0.0.1',
    port,
    verifiers: [fakeVerifier()],
    timeoutMs: 2000,
  });
  assert.equal((peer as Verdict).variant, 'fake');
  socket.write('hello');
  const [data] = await new Promise<Buffer[]>((resolve) => socket.once('data', (d) => resolve([d])));
  assert.equal(data?.toString(), 'hello');
  socket.destroy();
  await server.close();
});
