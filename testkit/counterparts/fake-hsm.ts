import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { createServer, type TLSSocket } from 'node:tls';
import { concat } from '@asterism/bytes/bytes';
import { toUtf8 } from '@asterism/bytes/encoding';
import { Writer } from '@asterism/bytes/writer';
import {
  CALLS,
  type CallName,
  encodeBody,
  encodeFrame,
  FRAME_HEADER_BYTES,
  parseBody,
  parseFrameHeader,
} from '@asterism/kms/backends/pkcs11/rpc-message';
import { ValueWriter } from '@asterism/kms/backends/pkcs11/rpc-values';
import { type KeyPairPem, type TestCa, testCa } from '../test-ca.ts';

/** What the server sends for a call: a frame, or whatever a test thinks of. 'hang' sends nothing, 'close' closes. */
export type Answer = Uint8Array | 'hang' | 'close';
export type Answers = Partial<Record<CallName, (code: number, count: number) => Answer>>;

/**
 * A server that speaks p11-kit's protocol and says what SoftHSM never would. Without answers of the test it
 * is an HSM with one good key, which wraps everything to zeros.
 */
export interface FakeHsm extends AsyncDisposable {
  readonly ca: TestCa;
  readonly client: KeyPairPem;
  readonly port: number;
  /** Names of the calls that came. */
  readonly calls: CallName[];
  /** Connections that were made. */
  readonly connections: number;
}

export const GOOD_KEY = {
  CKA_KEY_TYPE: 0x1fn,
  CKA_VALUE_LEN: 32n,
  CKA_ID: Uint8Array.of(1),
  CKA_SENSITIVE: true,
  CKA_EXTRACTABLE: false,
  CKA_WRAP: true,
  CKA_UNWRAP: true,
} as const;

const KEY = 9n;

/** A good answer. @param write the values of its signature */
export function answer(
  name: CallName,
  code: number,
  write: (out: ValueWriter) => unknown = () => {},
): Uint8Array {
  const { id, response } = CALLS[name];
  const values = new ValueWriter();
  write(values);
  return encodeFrame(code, encodeBody(id, response, values.finish(response)));
}

/** The function returned this. */
export function failure(value: number, code: number): Uint8Array {
  return encodeFrame(code, encodeBody(0, 'u', new ValueWriter().ulong(BigInt(value)).finish('u')));
}

/** C_GetTokenInfo. */
export function tokenAnswer(code: number, { label = 'token', flags = 0x404n } = {}): Uint8Array {
  const { id, response } = CALLS.C_GetTokenInfo;
  const out = new Writer();
  const text = (value: string, length: number) => out.u32be(length).bytes(toUtf8(value.padEnd(length)));
  text(label, 32);
  text('maker', 32);
  text('model', 16);
  text('0123456789abcdef', 16);
  out.u64be(flags);
  for (let i = 0; i < 10; i++) out.u64be(0n);
  out.bytes(new Uint8Array(4));
  text('', 16);
  return encodeFrame(code, encodeBody(id, response, out.finish()));
}

const GOOD: Record<CallName, (code: number, body: Uint8Array) => Uint8Array> = {
  C_Initialize: (code) => answer('C_Initialize', code),
  C_GetSlotList: (code) => answer('C_GetSlotList', code, (out) => out.ulongs([1n])),
  C_GetTokenInfo: (code) => tokenAnswer(code),
  C_OpenSession: (code) => answer('C_OpenSession', code, (out) => out.ulong(5n)),
  C_Login: (code) => answer('C_Login', code),
  C_FindObjectsInit: (code) => answer('C_FindObjectsInit', code),
  C_FindObjects: (code) => answer('C_FindObjects', code, (out) => out.ulongs([KEY])),
  C_FindObjectsFinal: (code) => answer('C_FindObjectsFinal', code),
  C_GetAttributeValue: (code, body) => {
    const { values } = parseBody(body);
    values.ulong();
    const attributes = values.ulong() === KEY ? GOOD_KEY : { CKA_VALUE: new Uint8Array(64) };
    return answer('C_GetAttributeValue', code, (out) => out.attributes(attributes).ulong(0n));
  },
  C_CreateObject: (code) => answer('C_CreateObject', code, (out) => out.ulong(20n)),
  C_WrapKey: (code) => answer('C_WrapKey', code, (out) => out.bytes(new Uint8Array(72))),
  C_UnwrapKey: (code) => answer('C_UnwrapKey', code, (out) => out.ulong(21n)),
  C_DestroyObject: (code) => answer('C_DestroyObject', code),
};

/** @param version the byte that it greets with */
export async function fakeHsm(answers: Answers = {}, version: Answer = Uint8Array.of(0)): Promise<FakeHsm> {
  const ca = await testCa();
  const own = await ca.issue({ name: 'localhost', usage: 'server', addresses: ['127.0.0.1'] });
  const client = await ca.issue({ name: 'asterism', usage: 'client' });
  const calls: CallName[] = [];
  const sockets = new Set<TLSSocket>();
  let connections = 0;
  const send = (socket: TLSSocket, what: Answer) => {
    if (what === 'close') socket.destroy();
    else if (what !== 'hang') socket.write(what);
  };
  const serve = (socket: TLSSocket) => {
    connections++;
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket));
    socket.on('error', () => {});
    let received: Uint8Array = new Uint8Array();
    let greeted = false;
    socket.on('data', (chunk) => {
      received = concat(received, chunk);
      if (!greeted) {
        greeted = true;
        received = received.slice(1);
        send(socket, version);
      }
      while (received.length >= FRAME_HEADER_BYTES) {
        const { code, bodyBytes } = parseFrameHeader(received.subarray(0, FRAME_HEADER_BYTES));
        const end = FRAME_HEADER_BYTES + bodyBytes;
        if (received.length < end) return;
        const body = received.slice(FRAME_HEADER_BYTES, end);
        received = received.slice(end);
        const name = nameOf(parseBody(body).id);
        calls.push(name);
        const count = calls.filter((called) => called === name).length;
        send(socket, answers[name]?.(code, count) ?? GOOD[name](code, body));
      }
    });
  };
  const server = createServer(
    { cert: own.certificate, key: own.key, ca: ca.pem, requestCert: true, rejectUnauthorized: true },
    serve,
  );
  server.on('tlsClientError', () => {});
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    ca,
    client,
    port: (server.address() as AddressInfo).port,
    calls,
    get connections() {
      return connections;
    },
    async [Symbol.asyncDispose]() {
      const closed = once(server, 'close');
      server.close();
      for (const socket of sockets) socket.destroy();
      await closed;
    },
  };
}

function nameOf(id: number): CallName {
  const [name] = Object.entries(CALLS).find(([, call]) => call.id === id) ?? [];
  if (name === undefined) throw new Error(`call ${id} is not expected`);
  return name as CallName;
}
