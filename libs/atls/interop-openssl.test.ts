import assert from 'node:assert/strict';
import { type ChildProcessWithoutNullStreams, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { fakeIssuer, fakeVerifier } from '@asterism/testkit/fake-attestation';
import { freePort } from '@asterism/testkit/free-port';
import { makeCertificate } from './certificate.ts';
import { connectAtls } from './client.ts';
import { pem } from './der.ts';
import { newIdentity } from './identity.ts';
import { newNonce, nonceCa, nonceText } from './nonce.ts';
import { createAtlsServer } from './server.ts';

const HOST = '127.0.0.1';
const missing = spawnSync('openssl', ['version']).status !== 0;
const options = {
  timeout: 30_000,
  ...(missing && { skip: 'NOT TESTED against openssl: it is not installed' }),
};

function folder(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), 'asterism-openssl-'));
  t.after(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

async function serve(t: TestContext, mutual: boolean) {
  const admitted: number[] = [];
  const server = createAtlsServer({
    issuer: fakeIssuer({ length: 1000 }),
    ...(mutual && { verifiers: [fakeVerifier()] }),
    onConnection: (socket) => {
      admitted.push(1);
      socket.on('error', () => {});
      socket.resume();
    },
  });
  t.after(() => server.close());
  const { port } = await server.listen(0, HOST);
  return { port, admitted };
}

/** Runs s_client until its input ends, after `stayMs`: tickets come after the handshake. */
async function sClient(port: number, args: readonly string[], stayMs = 300): Promise<string> {
  const child = spawn('openssl', ['s_client', '-connect', `${HOST}:${port}`, ...args]);
  child.stdin.on('error', () => {});
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => (output += chunk));
  setTimeout(() => child.stdin.end(), stayMs);
  await once(child, 'close');
  return output;
}

for (const version of ['-tls1_2', '-tls1_3']) {
  test(`s_client ${version}: exactly one acceptable CA, a fresh nonce each time`, options, async (t) => {
    const { port, admitted } = await serve(t, true);
    const seen = new Set<string>();
    for (let i = 0; i < 3; i++) {
      const output = await sClient(port, [version, '-servername', nonceText(newNonce())]);
      const [, names = ''] =
        /Acceptable client certificate CA names\n([\s\S]*?)\n(?:Client|Requested)/.exec(output) ?? [];
      const lines = names.split('\n');
      assert.equal(lines.length, 1, output);
      assert.match(lines[0]!, /^CN = "?[A-Za-z0-9+/]{43}="?$/);
      seen.add(lines[0]!);
    }
    assert.equal(seen.size, 3);
    assert.equal(admitted.length, 0);
  });

  test(`s_client ${version}: one way works, a session is not resumed`, options, async (t) => {
    const { port, admitted } = await serve(t, false);
    const session = join(folder(t), 'session.pem');
    const base = [version, '-servername', nonceText(newNonce())];
    const first = await sClient(port, [...base, '-sess_out', session]);
    assert.match(first, /^New, /m);
    assert.match(first, /CN = Constellation/);
    assert.doesNotMatch(first, /Acceptable client certificate CA names/);
    const again = await sClient(port, [...base, '-sess_in', session]);
    assert.doesNotMatch(again, /^Reused, /m);
    assert.equal(admitted.length, 2);
  });
}

test('s_client: no server name, no certificate; renegotiation is refused', options, async (t) => {
  const { port, admitted } = await serve(t, false);
  const nameless = await sClient(port, ['-noservername']);
  assert.match(nameless, /no peer certificate available/);
  assert.equal(admitted.length, 0);
  const child = spawn('openssl', [
    's_client',
    '-connect',
    `${HOST}:${port}`,
    '-tls1_2',
    '-servername',
    nonceText(newNonce()),
  ]);
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => (output += chunk));
  child.stdin.on('error', () => {});
  while (!output.includes('Verify return code')) await once(child.stdout, 'data');
  child.stdin.write('R\n');
  setTimeout(() => child.stdin.end(), 1000);
  await once(child, 'close');
  assert.match(output, /RENEGOTIATING[\s\S]*(no renegotiation|handshake failure|unexpected)/i);
});

test('s_server reads the certificate of our mutual client, with a retry and without', options, async (t) => {
  const path = folder(t);
  const identity = newIdentity();
  writeFileSync(join(path, 'key.pem'), identity.privateKeyPem);
  writeFileSync(
    join(path, 'cert.pem'),
    pem('CERTIFICATE', makeCertificate({ ...identity, now: Date.now() })),
  );
  writeFileSync(join(path, 'ca.pem'), nonceCa(newNonce()));
  for (const groups of ['X25519', 'P-521']) {
    const port = await freePort();
    const files = [
      '-key',
      join(path, 'key.pem'),
      '-cert',
      join(path, 'cert.pem'),
      '-CAfile',
      join(path, 'ca.pem'),
    ];
    const server = spawn('openssl', [
      's_server',
      '-accept',
      `${HOST}:${port}`,
      '-Verify',
      '1',
      '-groups',
      groups,
      ...files,
    ]);
    t.after(() => server.kill('SIGKILL'));
    const output = gather(server);
    while (!output().includes('ACCEPT')) await once(server.stdout, 'data');
    const { socket } = await connectAtls({
      host: HOST,
      port,
      issuer: fakeIssuer({ length: 5000 }),
      verifiers: [],
      timeoutMs: 5000,
    });
    socket.write('from the mutual client\n');
    while (!output().includes('from the mutual client')) await once(server.stdout, 'data');
    assert.match(output(), /Client certificate\n-----BEGIN CERTIFICATE-----/);
    assert.match(output(), /CN = Constellation/);
    socket.destroy();
    server.kill('SIGKILL');
  }
});

function gather(child: ChildProcessWithoutNullStreams): () => string {
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => (output += chunk));
  return () => output;
}
