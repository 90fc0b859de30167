import { createServer, type Server, type ServerResponse } from 'node:http';
import { fromBase64Url, toBase64 } from '@asterism/bytes/encoding';
import { AsterismError, BusyError, ParseError } from '@asterism/errors/errors';
import { peerAddress } from '@asterism/rpc/connection-host';
import type { RpcLog } from '@asterism/rpc/status';
import { boundConnections, HTTP_TIMES } from '@asterism/runtime/http-places';
import type { Attester } from './attester.ts';

const MAX_URL = 1024;
const MAX_CONNECTIONS = 256;
const MAX_PER_ADDRESS = 32;
/** Milliseconds without a byte either way. Longer than a document may take. */
const IDLE_MS = 15_000;

/** `GET /?nonce=<URL-safe base64>` -> `{"data": "<base64 of the document>"}`. Without TLS: evidence protects itself. */
export function createHttpServer(attester: Attester, log: RpcLog): Server {
  const server = createServer({ ...HTTP_TIMES, maxHeaderSize: 8192 }, async (request, response) => {
    // Whoever goes away does not keep the TPM busy.
    const gone = new AbortController();
    response.once('close', () => gone.abort());
    try {
      if (request.method !== 'GET') {
        response.setHeader('allow', 'GET');
        answer(response, 405, { error: 'only GET is answered' });
        return;
      }
      const nonce = readNonce(request.url ?? '');
      const address = peerAddress(request.socket.remoteAddress) ?? 'unknown';
      answer(response, 200, { data: toBase64(await attester.attest(nonce, address, gone.signal)) });
    } catch (error) {
      if (error instanceof ParseError) answer(response, 400, { error: error.message });
      else if (error instanceof BusyError) answer(response, 429, { error: error.message });
      else {
        if (!gone.signal.aborted) log.error({ err: error }, 'no document could be made');
        const known = error instanceof AsterismError;
        answer(response, known ? 503 : 500, { error: known ? error.message : 'internal error' });
      }
    }
  });
  server.timeout = IDLE_MS;
  boundConnections(server, { max: MAX_CONNECTIONS, maxPerAddress: MAX_PER_ADDRESS });
  return server;
}

function answer(response: ServerResponse, status: number, body: object): void {
  response
    .writeHead(status, {
      'content-type': 'application/json',
      'cache-control': 'no-store',
      'x-content-type-options': 'nosniff',
    })
    .end(`${JSON.stringify(body)}\n`);
}

function readNonce(url: string): Uint8Array {
  if (url.length > MAX_URL) throw new ParseError('the URL is too long');
  const query = url.includes('?') ? url.slice(url.indexOf('?') + 1) : '';
  const values = new URLSearchParams(query).getAll('nonce');
  if (values.length !== 1) throw new ParseError('the parameter nonce is needed exactly once');
  return fromBase64Url(values[0]!);
}
