// Recovery of a made-up node that waits on loopback, over real aTLS.
import assert from 'node:assert/strict';
import { readdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { fromHex } from '@asterism/bytes/encoding';
import { MASTER_SECRET_FILE } from '@asterism/config/master-secret';
import { Workspace } from '@asterism/config/workspace';
import { renderClusterKmsUri } from '@asterism/kms/cluster-uri';
import { AtlsGrpcServer } from '@asterism/rpc/atls-server';
import { API } from '@asterism/rpc/gen/recover_pb';
import { splitSecret } from '@asterism/shares/split';
import { renderShare, shareCode } from '@asterism/shares/text';
import { fakeIssuer } from '@asterism/testkit/fake-attestation';
import { command } from '../command.fixture.ts';
import { miniUp } from '../flows/mini.ts';
import { AS_FOUND, world } from '../world.fixture.ts';

/** An initialized cluster of which one node waits; its master secret is in shares only. */
async function locked(t: TestContext) {
  const { folder, addresses, parts, context } = await world(t);
  await miniUp(context(), parts, AS_FOUND);
  const workspace = new Workspace(folder);
  const secret = (await workspace.masterSecret())!;
  const id = fromHex((await workspace.requireState()).clusterId!);
  await rm(join(folder, MASTER_SECRET_FILE));
  const got: string[] = [];
  const server = new AtlsGrpcServer({ issuer: fakeIssuer(), handshakeTimeoutMs: 5000, maxPending: 10 });
  server.addService(API, {
    recover: async ({ kmsUri }) => {
      got.push(kmsUri);
      return {};
    },
  });
  const { port } = await server.listen(0, addresses[0]);
  t.after(() => server.stop(0));
  const plan = { count: 3, threshold: 2 };
  const shares = await splitSecret(secret, id, plan);
  const write = async (name: string, text: string) => {
    await writeFile(join(folder, name), text);
    return join(folder, name);
  };
  const recover = (...files: string[]) =>
    command(parts, [
      '--workspace',
      folder,
      'recover',
      '--endpoint',
      `${addresses[0]}:${port}`,
      ...files.flatMap((file) => ['--share', file]),
    ]);
  return { folder, secret, id, shares, got, write, recover, plan };
}

test('a node gets the key that shares give, and no file with it is made', async (t) => {
  const { folder, secret, shares, got, write, recover } = await locked(t);
  const a = await write('a', renderShare(shares[0]!, 'demo'));
  const c = await write('c', shareCode(shares[2]!));
  const { stdout, stderr } = await recover(a, c);
  assert.match(stdout, /Recovered 1 control-plane node/);
  assert.deepEqual(got, [renderClusterKmsUri(secret)]);
  assert.ok(!(await readdir(folder)).includes(MASTER_SECRET_FILE));
  for (const said of [stdout, stderr])
    assert.ok(!said.includes(Buffer.from(secret.key).toString('base64url').slice(0, 12)));
});

test('too few, foreign and forged shares are named before any node is asked', async (t) => {
  const { secret, id, shares, got, write, recover, plan } = await locked(t);
  const a = await write('a', renderShare(shares[0]!, 'demo'));
  const [foreign] = await splitSecret(secret, new Uint8Array(32).fill(0xee), plan);
  const f = await write('f', shareCode(foreign!));
  await assert.rejects(recover(a), { code: 'ERR_SHARES', message: /1 of 2 needed/ });
  await assert.rejects(recover(a, a), { code: 'ERR_SHARES', message: /a: is the same share as/ });
  await assert.rejects(recover(a, f), { code: 'ERR_SHARES', message: /f: is of another cluster, eeee/ });
  const forged = await splitSecret({ ...secret, key: new Uint8Array(32) }, id, plan);
  const [x, y] = [await write('x', shareCode(forged[0]!)), await write('y', shareCode(forged[1]!))];
  await assert.rejects(recover(x, y), { code: 'ERR_FOREIGN_SECRET' });
  const others = await splitSecret(secret, new Uint8Array(32).fill(0xee), plan);
  const [g, h] = [await write('g', shareCode(others[0]!)), await write('h', shareCode(others[1]!))];
  await assert.rejects(recover(g, h), {
    code: 'ERR_SHARES',
    message: /g: is of another cluster.*\n.*h: is of another/s,
  });
  assert.deepEqual(got, []);
});

test('a share in the place of a file name is not repeated', async (t) => {
  const { shares, recover } = await locked(t);
  const code = shareCode(shares[0]!);
  const words = renderShare(shares[1]!, undefined)
    .replaceAll(/^#.*\n/gm, '')
    .replaceAll(/\s+/g, ' ');
  for (const share of [code, words, words.slice(0, 200), code.slice(0, 100)]) {
    await assert.rejects(recover(share), (error: Error) => {
      assert.match(error.message, /argument 1: is a share itself/);
      return !error.message.includes(share.slice(20, 40));
    });
  }
});
