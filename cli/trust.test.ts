// What README.md says: every command that judges evidence says what that is worth.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AtlsGrpcServer } from '@asterism/rpc/atls-server';
import { API } from '@asterism/rpc/gen/recover_pb';
import { fakeIssuer } from '@asterism/testkit/fake-attestation';
import { command } from './command.fixture.ts';
import { miniUp } from './flows/mini.ts';
import { AS_FOUND, TRUST, world } from './world.fixture.ts';

test('mini up, init, status, verify and recover say what their evidence is worth', async (t) => {
  const { folder, addresses, parts, context } = await world(t);
  await miniUp(context(), parts, AS_FOUND);
  const server = new AtlsGrpcServer({ issuer: fakeIssuer(), handshakeTimeoutMs: 5000, maxPending: 10 });
  server.addService(API, { recover: async () => ({}) });
  const { port } = await server.listen(0, addresses[0]);
  t.after(() => server.stop(0));
  for (const args of [
    ['mini', 'up'],
    ['init'],
    ['status'],
    ['verify'],
    ['recover', '--endpoint', `${addresses[0]}:${port}`],
  ]) {
    const text = await command(parts, ['--workspace', folder, ...args]);
    assert.ok(text.stdout.includes(TRUST), `${args[0]}: ${text.stdout}`);
    const json = await command(parts, ['--workspace', folder, '-o', 'json', ...args]);
    assert.equal(JSON.parse(json.stdout).trust, TRUST, args[0]);
  }
});
