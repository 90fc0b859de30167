import assert from 'node:assert/strict';
import { createHash, createHmac, hkdfSync } from 'node:crypto';
import { once } from 'node:events';
import { connect as connectTcp } from 'node:net';
import { test } from 'node:test';
import { connect as connectTls, createSecureContext } from 'node:tls';
import { ParseError } from '@asterism/errors/errors';
import { fakeIssuer, fakeVerifier } from '@asterism/testkit/fake-attestation';
import fc from 'fast-check';
import { newIdentity } from '../identity.ts';
import { issueCertificate } from '../issuing.ts';
import { newNonce, nonceFromName, nonceText } from '../nonce.ts';
import { createAtlsServer } from '../server.ts';
import { Chunks } from './chunks.ts';
import { GateStream } from './gate-stream.ts';
import { HandshakeGate } from './handshake-gate.ts';
import { parseCertificateMessage, parseCertificateRequest, parseServerHello } from './messages.ts';
import { finishedData, RecordProtection, suiteOf } from './record-protection.ts';
import { MessageReader, RecordReader } from './records.ts';

const HOST = '127.0.0.1';

test("another machine's genuine certificate without its key is refused by the server's TLS", async () => {
  let admitted = 0;
  const refused = Promise.withResolvers<Error>();
  const server = createAtlsServer({
    issuer: fakeIssuer(),
    verifiers: [fakeVerifier()],
    onConnection: () => admitted++,
    onRefused: refused.resolve,
  });
  const { port } = await server.listen(0, HOST);
  const raw = connectTcp(port, HOST);
  const victim = newIdentity();
  const thief = newIdentity();
  const gate = new GateStream(raw, {
    // The victim vouches for its own key over the server's very nonce, as a relay could make it do.
    judge: async ({ request }) => ({
      certificate: await issueCertificate(
        fakeIssuer(),
        victim,
        nonceFromName(request!.authorities[0]!),
        AbortSignal.timeout(1000),
      ),
      privateKey: thief.privateKey,
    }),
    opened: () => {},
    failed: refused.resolve,
  });
  const socket = connectTls({
    socket: gate,
    secureContext: createSecureContext({ ca: [], minVersion: 'TLSv1.3' }),
    servername: nonceText(newNonce()),
    rejectUnauthorized: false,
    ALPNProtocols: ['h2'],
  });
  socket.on('error', () => {});
  socket.on('keylog', (line) => gate.keyLog(line));
  assert.match(`${await refused.promise}`, /signature|verify/i);
  assert.equal(admitted, 0);
  socket.destroy();
  await server.close();
});

test('key schedule: the same as by HKDF and HMAC of node:crypto', () => {
  for (const number of [0x1301, 0x1302, 0x1303]) {
    const suite = suiteOf(number);
    const secret = createHash(suite.hash).update('secret').digest();
    const transcript = createHash(suite.hash).update('transcript').digest();
    // HKDF-Expand alone: one block of HMAC.
    const label = (name: string, length: number) =>
      Buffer.concat([
        Buffer.from([0, length, name.length + 6]),
        Buffer.from(`tls13 ${name}`),
        Buffer.from([0, 1]),
      ]);
    const key = createHmac(suite.hash, secret).update(label('finished', suite.hashLength)).digest();
    const expected = createHmac(suite.hash, key).update(transcript).digest();
    assert.deepEqual(Buffer.from(finishedData(suite, secret, transcript)), expected);
    assert.equal(hkdfSync(suite.hash, secret, '', '', 16).byteLength, 16);
  }
  assert.throws(() => suiteOf(0x1304), ParseError);
});

test('records: sealed is opened, anything changed is not', () => {
  const suite = suiteOf(0x1302);
  const secret = new Uint8Array(48).fill(9);
  const message = new Uint8Array(40_000).fill(3);
  const sealed = new RecordProtection(suite, secret).sealHandshake(message);
  const reader = new RecordReader();
  const opener = new RecordProtection(suite, secret);
  reader.add(sealed);
  const opened: Uint8Array[] = [];
  for (let record = reader.next(); record !== undefined; record = reader.next()) {
    const { type, content } = opener.open(record.fragment, record.encoded.subarray(0, 5));
    assert.equal(type, 22);
    opened.push(content);
  }
  assert.deepEqual(Buffer.concat(opened), Buffer.from(message));
  const first = sealed.slice(0, 5 + 0x4011);
  for (const at of [0, 4, 5, 100, first.length - 1]) {
    const changed = first.slice();
    changed[at]! ^= 1;
    const fresh = new RecordProtection(suite, secret);
    assert.throws(() => fresh.open(changed.subarray(5), changed.subarray(0, 5)), ParseError);
  }
  const cleared = new RecordProtection(suite, secret);
  cleared.clear();
  assert.throws(() => cleared.open(first.subarray(5), first.subarray(0, 5)), ParseError);
});

test('chunks that come in a million pieces are put together without going over them again and again', () => {
  const chunks = new Chunks();
  const count = 1_000_000;
  for (let i = 0; i < count; i++) chunks.add(Uint8Array.of(i & 0xff));
  for (let i = 0; i < count / 2; i++) assert.equal(chunks.take(1)[0], i & 0xff);
  const rest = chunks.takeAll();
  assert.equal(rest.length, count / 2);
  assert.equal(rest.at(-1), (count - 1) & 0xff);
  assert.equal(chunks.length, 0);
});

test('chunks give back what they were given, whatever the pieces', () => {
  fc.assert(
    fc.property(fc.array(fc.uint8Array({ maxLength: 20 })), fc.array(fc.nat(30)), (pieces, takes) => {
      const chunks = new Chunks();
      for (const piece of pieces) chunks.add(piece);
      const all = Buffer.concat(pieces);
      let at = 0;
      for (const take of takes) {
        if (take > chunks.length) continue;
        assert.deepEqual(Buffer.from(chunks.peek(take)), all.subarray(at, at + take));
        assert.deepEqual(Buffer.from(chunks.take(take)), all.subarray(at, at + take));
        at += take;
      }
      assert.equal(chunks.length, all.length - at);
    }),
  );
});

test('a record or message that claims too much is refused before it is waited for', () => {
  for (const header of ['1603037fff', '1703034101', '1603030000', '0503030001', '1602030001', '1703ff4102']) {
    const reader = new RecordReader();
    reader.add(Buffer.from(header, 'hex'));
    assert.throws(() => reader.next(), ParseError, header);
  }
  const messages = new MessageReader();
  messages.add(Buffer.from('0bffffff', 'hex'));
  assert.throws(() => messages.next(), ParseError);
});

test('whatever a server sends, the gate fails or waits, and never opens', () => {
  // Half of the runs begin with a good record header, so that they get further.
  const header = fc.constantFrom('', '16030300', '1603030020020000', '170303', '140303000101');
  fc.assert(
    fc.property(header, fc.uint8Array({ maxLength: 400 }), (start, rest) => {
      let opened = false;
      const gate = new HandshakeGate({
        toClient: () => {},
        toServer: () => {},
        judge: () => assert.fail('judged'),
        ended: () => {},
        failed: () => {},
        opened: () => {
          opened = true;
        },
      });
      gate.receive(Buffer.concat([Buffer.from(start, 'hex'), rest]));
      gate.secret('SERVER_HANDSHAKE_TRAFFIC_SECRET', new Uint8Array(48));
      assert.equal(opened, false);
      assert.equal(gate.open, false);
    }),
    { numRuns: 2000 },
  );
});

test('message parsers throw ParseError or read, whatever the bytes', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), (body) => {
      for (const parse of [parseServerHello, parseCertificateRequest, parseCertificateMessage]) {
        try {
          parse(body);
        } catch (error) {
          assert.ok(error instanceof ParseError, `${error}`);
        }
      }
    }),
    { numRuns: 2000 },
  );
});

test('CertificateRequest: context, twice the same extension, no fitting signature algorithm', () => {
  const request = (extensions: string, context = '00') =>
    Buffer.from(`${context}${(extensions.length / 2).toString(16).padStart(4, '0')}${extensions}`, 'hex');
  const algorithms = '000d000400020403';
  assert.deepEqual(parseCertificateRequest(request(algorithms)), { authorities: [] });
  assert.equal(parseCertificateRequest(request(`${algorithms}002f000600040002aabb`)).authorities.length, 1);
  for (const [extensions, context] of [
    [algorithms, '0105'],
    [algorithms + algorithms],
    ['000d000400020804'],
    [''],
    [`${algorithms}002f000600040003aabb`],
    [`${algorithms}002f000600030002aabb`],
  ] as const)
    assert.throws(() => parseCertificateRequest(request(extensions, context)), ParseError, `${extensions}`);
});

test('a gate that waits for nothing more holds no socket', async () => {
  const server = createAtlsServer({ issuer: fakeIssuer(), onConnection: (socket) => socket.destroy() });
  const { port } = await server.listen(0, HOST);
  const raw = connectTcp(port, HOST);
  const gate = new GateStream(raw, { judge: async () => undefined, opened: () => {}, failed: () => {} });
  gate.destroy();
  await once(raw, 'close');
  await server.close();
});
