import { createServer, type Server } from 'node:http';
import { collectDefaultMetrics, type Registry } from 'prom-client';
import { boundConnections, HTTP_TIMES } from './http-places.ts';

const MAX_CONNECTIONS = 32;

/**
 * /healthz (the process answers and is not broken), /readyz (it can do its work) and /metrics of a service. Whoever
 * reaches the port may read them: they hold counts and states, nothing of callers.
 */
export async function serveHealth(options: {
  /** 0 for any free one. */
  readonly port: number;
  readonly registry: Registry;
  /** @returns undefined when ready, else what is missing */
  readonly missing: () => string | undefined;
  /** @returns undefined when whole, else why only a restart helps */
  readonly broken?: () => string | undefined;
  readonly host?: string;
}): Promise<Server> {
  collectDefaultMetrics({ register: options.registry });
  const server = createServer(HTTP_TIMES, (request, response) => {
    const say = (problem: string | undefined, good: string): void => {
      response.writeHead(problem === undefined ? 200 : 503).end(`${problem ?? good}\n`);
    };
    const path = request.url?.split('?')[0];
    if (path === '/healthz') say(options.broken?.(), 'ok');
    else if (path === '/readyz') say(options.missing(), 'ready');
    else if (path === '/metrics') {
      options.registry.metrics().then(
        (text) => response.setHeader('content-type', options.registry.contentType).end(text),
        () => response.writeHead(500).end(),
      );
    } else response.writeHead(404).end();
  });
  // The kubelet's probes must get in, whatever others hold open.
  boundConnections(server, { max: MAX_CONNECTIONS, maxPerAddress: MAX_CONNECTIONS });
  await new Promise<void>((resolve, reject) =>
    server.once('error', reject).listen(options.port, options.host, resolve),
  );
  return server;
}
