import { createServer, type Server } from 'node:http';
import { fromBase64Url, toBase64 } from '@asterism/bytes/encoding';
import { AsterismError, ParseError } from '@asterism/errors/errors';
import { peerAddress } from '@asterism/rpc/connection-host';
import { RateLimitError } from '@asterism/runtime/rate-limiter';
import type { Logger } from 'pino';
import type { Attester } from './service.ts';

const MAX_URL = 1024;

/** `GET /?nonce=<URL-safe base64>` -> `{"data": "<base64 of the document>"}`. Without TLS: evidence protects itself. */
export function createHttpServer(attester: Attester, log: Logger): Server {
  const server = createServer(
    { requestTimeout: 10_000, headersTimeout: 5000, maxHeaderSize: 8192 },
    async (request, response) => {
      const answer = (status: number, body: object) =>
        response
          .writeHead(status, {
            'content-type': 'application/json',
            'cache-control': 'no-store',
            'x-content-type-options': 'nosniff',
          })
          .end(`${JSON.stringify(body)}\n`);
      try {
        if (request.method !== 'GET') {
          answer(405, { error: 'only GET is answered' });
          return;
        }
        const nonce = readNonce(request.url ?? '');
        const document = await attester.attest(nonce, peerAddress(request.socket.remoteAddress) ?? 'unknown');
        answer(200, { data: toBase64(document) });
      } catch (error) {
        if (error instanceof ParseError) answer(400, { error: error.message });
        else if (error instanceof RateLimitError) answer(429, { error: error.message });
        else if (error instanceof AsterismError) answer(503, { error: error.message });
        else {
          log.error({ err: error }, 'unexpected error');
          answer(500, { error: 'internal error' });
        }
      }
    },
  );
  server.maxConnections = 256;
  return server;
}

function readNonce(url: string): Uint8Array {
  if (url.length > MAX_URL) throw new ParseError('the URL is too long');
  const values = new URLSearchParams(url.includes('?') ? url.slice(url.indexOf('?') + 1) : '').getAll(
    'nonce',
  );
  if (values.length !== 1) throw new ParseError('the parameter nonce is needed exactly once');
  return fromBase64Url(values[0]!);
}
