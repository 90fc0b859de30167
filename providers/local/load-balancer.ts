import { request } from 'node:https';
import { connect, createServer, type Server, type Socket } from 'node:net';

/** What a control plane offers: API server, bootstrapper, recovery, verification, join. */
export const BALANCED_PORTS = [6443, 9000, 9999, 30080, 30081, 30090] as const;

const CONNECT_TIMEOUT_MS = 1500;
const IDLE_TIMEOUT_MS = 30 * 60_000;
const MAX_CONNECTIONS = 2048;

const PROBE_PERIOD_MS = 1000;
const API_PORT = 6443;
/** Only the first control plane serves it; the others refuse. */
const INIT_PORT = 9000;

/**
 * Passes TCP connections on to the first backend that takes them, beginning with another one each time. API servers
 * get connections only while they say that they are ready: one that has just started knows no roles yet and refuses
 * everybody. Init always begins with the first backend: two of its calls should meet one machine.
 */
export async function balance(
  address: string,
  port: number,
  backends: () => readonly string[],
): Promise<Server> {
  const ready = new Set<string>();
  if (port === API_PORT) {
    setInterval(() => {
      for (const backend of backends())
        void probe(backend).then((yes) => (yes ? ready.add(backend) : ready.delete(backend)));
    }, PROBE_PERIOD_MS).unref();
  }
  let next = 0;
  const server = createServer({ pauseOnConnect: true }, (client) => {
    const all = backends();
    // Where none is known to be ready, connecting is the only way to find out.
    const known = all.filter((backend) => ready.has(backend));
    const candidates = known.length > 0 ? known : all;
    const order = candidates.map((_, i) => candidates[(next + i) % candidates.length]!);
    if (port !== INIT_PORT) next = (next + 1) % Math.max(all.length, 1);
    client.on('error', () => client.destroy());
    void dial(order, port).then((backend) =>
      backend === undefined ? client.destroy() : join(client, backend),
    );
  });
  server.maxConnections = MAX_CONNECTIONS;
  await new Promise<void>((resolve, reject) => server.once('error', reject).listen(port, address, resolve));
  return server;
}

/** Whether an API server says that it is ready. Its certificate does not matter: it gets no secret. */
function probe(host: string): Promise<boolean> {
  return new Promise((resolve) => {
    const outgoing = request(
      {
        host,
        port: API_PORT,
        path: '/readyz',
        rejectUnauthorized: false,
        agent: false,
        timeout: CONNECT_TIMEOUT_MS,
      },
      (response) => {
        response.resume();
        resolve(response.statusCode === 200);
      },
    );
    outgoing.on('timeout', () => outgoing.destroy());
    outgoing.on('error', () => resolve(false));
    outgoing.end();
  });
}

async function dial(order: readonly string[], port: number): Promise<Socket | undefined> {
  for (const host of order) {
    const socket = await new Promise<Socket | undefined>((resolve) => {
      const candidate = connect({ host, port });
      const fail = () => {
        candidate.destroy();
        resolve(undefined);
      };
      candidate.setTimeout(CONNECT_TIMEOUT_MS, fail);
      candidate.once('error', fail);
      candidate.once('connect', () => {
        candidate.off('error', fail);
        candidate.removeAllListeners('timeout');
        resolve(candidate);
      });
    });
    if (socket !== undefined) return socket;
  }
  return undefined;
}

function join(client: Socket, backend: Socket): void {
  if (client.destroyed) {
    backend.on('error', () => {});
    backend.destroy();
    return;
  }
  for (const [from, to] of [
    [client, backend],
    [backend, client],
  ] as const) {
    from.setTimeout(IDLE_TIMEOUT_MS, () => from.destroy());
    from.on('error', () => to.destroy());
    // What one side sent before it closed may still be on its way to the other.
    from.on('close', () => to.destroySoon());
    from.pipe(to);
  }
}
