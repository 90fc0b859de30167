import { appendFile, chmod, mkdir, rename, rm, stat } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import { dirname, join } from 'node:path';
import {
  gatewayOf,
  instanceOf,
  type LocalCluster,
  type LocalNode,
  nodeFolder,
  nodeRuntime,
} from './cluster.ts';

const MAX_LOG_LINE = 16 * 1024;
const MAX_LOG_FILE = 8 << 20;

/**
 * Where a node's metadata is served, from the host. In a folder of its own, which can be given to a pod alone: a socket
 * that is made anew when the supervisor starts again could not.
 */
export const metadataSocketOf = (uid: string, node: string): string =>
  join(nodeRuntime(uid, node), 'metadata/metadata.sock');

/**
 * The metadata endpoint of one node: on a socket that only this node has, so that nobody can ask, or log, in its name.
 */
export async function serveMetadata(current: () => LocalCluster, node: LocalNode): Promise<Server> {
  const { uid } = current();
  const socket = metadataSocketOf(uid, node.name);
  const log = join(nodeFolder(uid, node.name), 'node.log');
  await mkdir(dirname(socket), { recursive: true, mode: 0o700 });
  await rm(socket, { force: true });
  const json = (value: unknown) => ({ type: 'application/json', body: JSON.stringify(value) });
  const answers: Record<string, () => { type: string; body: string }> = {
    '/self': () => json(instanceOf(current(), node)),
    '/peers': () => json(current().nodes.map((peer) => instanceOf(current(), peer))),
    '/endpoint': () => json(gatewayOf(current())),
    '/initsecrethash': () => ({ type: 'text/plain', body: current().initSecretHash }),
  };
  const server = createServer(
    { requestTimeout: 10_000, headersTimeout: 5000, maxHeaderSize: 8192 },
    (request, response) => {
      const answer = request.method === 'GET' ? answers[request.url ?? ''] : undefined;
      if (answer !== undefined) {
        const { type, body } = answer();
        response.writeHead(200, { 'content-type': type }).end(body);
      } else if (request.method === 'POST' && request.url === '/log') {
        const chunks: Buffer[] = [];
        let length = 0;
        request.on('data', (chunk: Buffer) => {
          length += chunk.length;
          if (length <= MAX_LOG_LINE) chunks.push(chunk);
        });
        request.on('end', () => {
          // Control characters must not reach a terminal that shows the log.
          const line = Buffer.concat(chunks)
            .toString('utf8')
            .replace(/\p{Cc}/gu, ' ');
          appendBounded(log, `${line}\n`).then(
            () => response.writeHead(length > MAX_LOG_LINE ? 413 : 200).end(),
            () => response.writeHead(507).end(),
          );
        });
      } else {
        response.writeHead(404).end();
      }
    },
  );
  server.maxConnections = 64;
  await new Promise<void>((resolve, reject) => server.once('error', reject).listen(socket, resolve));
  await chmod(socket, 0o600);
  return server;
}

/** Keeps the last lines: at most twice {@link MAX_LOG_FILE} bytes in two files. */
async function appendBounded(path: string, line: string): Promise<void> {
  const size = (await stat(path).catch(() => undefined))?.size ?? 0;
  if (size > MAX_LOG_FILE) await rename(path, `${path}.1`);
  await appendFile(path, line, { mode: 0o600 });
}
