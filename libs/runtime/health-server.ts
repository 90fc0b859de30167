import { createServer, type Server } from 'node:http';
import { collectDefaultMetrics, type Registry } from 'prom-client';

/** /healthz (the process answers), /readyz (it can do its work) and /metrics of a service. */
export async function serveHealth(options: {
  readonly port: number;
  readonly registry: Registry;
  /** @returns undefined when ready, else what is missing */
  readonly missing: () => string | undefined;
  readonly host?: string;
}): Promise<Server> {
  collectDefaultMetrics({ register: options.registry });
  const server = createServer({ requestTimeout: 5000, headersTimeout: 5000 }, (request, response) => {
    const path = request.url?.split('?')[0];
    if (path === '/healthz') response.end('ok\n');
    else if (path === '/readyz') {
      const missing = options.missing();
      response.writeHead(missing === undefined ? 200 : 503).end(`${missing ?? 'ready'}\n`);
    } else if (path === '/metrics') {
      options.registry.metrics().then(
        (text) => response.setHeader('content-type', options.registry.contentType).end(text),
        () => response.writeHead(500).end(),
      );
    } else response.writeHead(404).end();
  });
  server.maxConnections = 32;
  await new Promise<void>((resolve, reject) =>
    server.once('error', reject).listen(options.port, options.host, resolve),
  );
  return server;
}
