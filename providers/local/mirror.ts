import { open } from 'node:fs/promises';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { join } from 'node:path';

export const MIRROR_PORT = 8080;

/**
 * Serves the files of a folder that are named by their SHA-256, and nothing else. What is missing is missing for who
 * asks for it only. Nodes check what they get.
 */
export async function serveMirror(address: string, folder: string, port = MIRROR_PORT): Promise<Server> {
  const server = createServer({ headersTimeout: 5000, requestTimeout: 30_000 }, (request, response) => {
    serve(folder, request, response).catch(() => response.destroy());
  });
  server.maxConnections = 64;
  await new Promise<void>((resolve, reject) => server.once('error', reject).listen(port, address, resolve));
  return server;
}

async function serve(folder: string, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const hash = /^\/components\/([0-9a-f]{64})$/.exec(request.url ?? '')?.[1];
  const file =
    request.method === 'GET' && hash !== undefined
      ? await open(join(folder, hash)).catch(() => undefined)
      : undefined;
  if (file === undefined) {
    response.writeHead(404).end();
    return;
  }
  const stream = file.createReadStream({ highWaterMark: 1 << 20 });
  stream.on('error', () => response.destroy());
  response.on('close', () => stream.destroy());
  const { size } = await file.stat();
  response.writeHead(200, { 'content-type': 'application/octet-stream', 'content-length': size });
  stream.pipe(response);
}
