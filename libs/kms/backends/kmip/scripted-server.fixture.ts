import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { createServer, type TLSSocket, type TlsOptions } from 'node:tls';
import { bytes, enumeration, integer, required, structure, structureOf } from './items.ts';
import { TAG } from './tags.ts';
import { decodeTtlv, encodeTtlv, type Item, type Structure } from './ttlv.ts';

/** A request as the server reads it. */
export interface Asked {
  readonly operation: number;
  readonly id: Uint8Array;
  readonly payload: Structure;
}

/** What the server does with a request; what it returns is sent. */
export type Script = (asked: Asked, socket: TLSSocket) => Uint8Array | undefined;

export interface ScriptedServer extends AsyncDisposable {
  readonly port: number;
  script: Script;
  /** Connections whose handshake succeeded, so far. */
  readonly connections: number;
  /** Operations that were asked for, so far. */
  readonly asked: readonly number[];
}

/** A server on loopback that answers as it is told to: what real ones never do. */
export async function scriptedServer(tls: TlsOptions, script: Script): Promise<ScriptedServer> {
  const sockets = new Set<TLSSocket>();
  const asked: number[] = [];
  let connections = 0;
  const server = createServer({ requestCert: true, rejectUnauthorized: true, ...tls }, (socket) => {
    connections++;
    sockets.add(socket);
    socket.on('error', () => {});
    let received = Buffer.alloc(0);
    socket.on('data', (chunk: Buffer) => {
      received = Buffer.concat([received, chunk]);
      if (received.length < 8 || received.length < 8 + received.readUInt32BE(4)) return;
      const request = parse(received);
      received = Buffer.alloc(0);
      asked.push(request.operation);
      const answer = made.script(request, socket);
      if (answer !== undefined) socket.write(answer);
    });
  });
  server.on('tlsClientError', () => {});
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const made = {
    port: (server.address() as AddressInfo).port,
    script,
    asked,
    get connections() {
      return connections;
    },
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      server.close();
      await once(server, 'close');
    },
  };
  return made;
}

function parse(message: Uint8Array): Asked {
  const item = structureOf(decodeTtlv(message) as Structure, TAG.batchItem);
  return {
    operation: required(item, TAG.operation, 'enumeration'),
    id: required(item, TAG.uniqueBatchItemId, 'byteString'),
    payload: structureOf(item, TAG.requestPayload),
  };
}

/** An answer of KMIP 1.4 as it should be. @param failure Result Reason of a refusal, and more */
export function answerTo(
  { operation, id }: Asked,
  payload: readonly Item[],
  failure?: readonly Item[],
): Uint8Array {
  return encodeTtlv(
    structure(
      TAG.responseMessage,
      structure(
        TAG.responseHeader,
        structure(
          TAG.protocolVersion,
          integer(TAG.protocolVersionMajor, 1),
          integer(TAG.protocolVersionMinor, 4),
        ),
        integer(TAG.batchCount, 1),
      ),
      structure(
        TAG.batchItem,
        enumeration(TAG.operation, operation),
        bytes(TAG.uniqueBatchItemId, id),
        enumeration(TAG.resultStatus, failure === undefined ? 0 : 1),
        ...(failure ?? [structure(TAG.responsePayload, ...payload)]),
      ),
    ),
  );
}
