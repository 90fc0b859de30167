import { createReadStream } from 'node:fs';
import { createServer, type Server } from 'node:http';
import { join } from 'node:path';
import type { ComponentManifest } from '@asterism/kubernetes/components/provide';

export const MIRROR_PORT = 8080;

/** Serves the components of a manifest by hash, and nothing else. Nodes check what they get. */
export async function serveMirror(
  address: string,
  folder: string,
  manifest: ComponentManifest,
): Promise<Server> {
  const files = new Map(
    manifest.components.map((entry) => [`/components/${entry.hash.slice('sha256:'.length)}`, entry]),
  );
  const server = createServer({ headersTimeout: 5000, requestTimeout: 30_000 }, (request, response) => {
    const entry = request.method === 'GET' ? files.get(request.url ?? '') : undefined;
    if (entry === undefined) {
      response.writeHead(404).end();
      return;
    }
    response.writeHead(200, { 'content-type': 'application/octet-stream', 'content-length': entry.size });
    const file = createReadStream(join(folder, entry.file), { highWaterMark: 1 << 20 });
    file.on('error', () => response.destroy());
    response.on('close', () => file.destroy());
    file.pipe(response);
  });
  server.maxConnections = 64;
  await new Promise<void>((resolve, reject) =>
    server.once('error', reject).listen(MIRROR_PORT, address, resolve),
  );
  return server;
}
