import { once } from 'node:events';
import { createServer, type IncomingHttpHeaders, type IncomingMessage, type ServerResponse } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { buffer } from 'node:stream/consumers';
import type { KeyPairPem } from './test-ca.ts';

/** A request as it came. */
export interface SeenRequest {
  readonly method: string;
  readonly path: string;
  readonly headers: IncomingHttpHeaders;
  readonly body: Buffer;
}

/** What to answer; a function does it itself (or hangs, or cuts the connection). */
export type ScriptedAnswer =
  | {
      readonly status: number;
      readonly headers?: Readonly<Record<string, string>>;
      readonly body?: string | Uint8Array;
    }
  | ((response: ServerResponse) => void);

/** A server on loopback that answers what a test says: what no honest counterpart does. */
export interface ScriptedHttp extends AsyncDisposable {
  readonly endpoint: string;
  readonly requests: readonly SeenRequest[];
}

/** @param answer for each request, by its number from 0 */
export async function scriptedHttp(
  answer: (request: SeenRequest, number: number) => ScriptedAnswer,
  tls?: KeyPairPem,
): Promise<ScriptedHttp> {
  const requests: SeenRequest[] = [];
  const onRequest = (incoming: IncomingMessage, response: ServerResponse) => {
    buffer(incoming)
      .then((body) => {
        const { method = '', url: path = '', headers } = incoming;
        const request = { method, path, headers, body };
        const answered = answer(request, requests.push(request) - 1);
        if (typeof answered === 'function') answered(response);
        else response.writeHead(answered.status, answered.headers).end(answered.body);
      })
      // The peer has gone away.
      .catch(() => response.destroy());
  };
  const server =
    tls === undefined
      ? createServer(onRequest)
      : createTlsServer({ cert: tls.certificate, key: tls.key }, onRequest);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  return {
    endpoint: `${tls === undefined ? 'http' : 'https'}://127.0.0.1:${port}`,
    requests,
    async [Symbol.asyncDispose]() {
      const closed = once(server, 'close');
      server.close();
      server.closeAllConnections();
      await closed;
    },
  };
}
