import { createServer, type Server } from 'node:http';
import { collectDefaultMetrics, Gauge, Registry } from 'prom-client';

/** What the node is doing: for /readyz and the metric. */
export type NodePhase = 'starting' | 'waiting' | 'initialising' | 'joining' | 'member' | 'failed';
const PHASES: readonly NodePhase[] = ['starting', 'waiting', 'initialising', 'joining', 'member', 'failed'];

/** /healthz, /readyz (ready = the node can be initialised or is a member) and /metrics. */
export class Health {
  #phase: NodePhase = 'starting';
  readonly #registry = new Registry();
  readonly #gauge: Gauge;
  readonly #server: Server;

  constructor() {
    collectDefaultMetrics({ register: this.#registry });
    this.#gauge = new Gauge({
      name: 'asterism_bootstrapper_phase',
      help: '1 for what this node is doing',
      labelNames: ['phase'],
      registers: [this.#registry],
    });
    this.set('starting');
    this.#server = createServer((request, response) => {
      const path = request.url?.split('?')[0];
      if (path === '/healthz') response.end('ok\n');
      else if (path === '/readyz') {
        response.statusCode = this.#phase === 'starting' || this.#phase === 'failed' ? 503 : 200;
        response.end(`${this.#phase}\n`);
      } else if (path === '/metrics') {
        this.#registry.metrics().then(
          (text) => response.setHeader('content-type', this.#registry.contentType).end(text),
          () => response.writeHead(500).end(),
        );
      } else response.writeHead(404).end();
    });
    this.#server.maxConnections = 32;
    this.#server.requestTimeout = 5000;
  }

  set(phase: NodePhase): void {
    this.#phase = phase;
    for (const each of PHASES) this.#gauge.set({ phase: each }, each === phase ? 1 : 0);
  }

  listen(port: number): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#server.once('error', reject);
      this.#server.listen(port, () => resolve());
    });
  }

  close(): void {
    this.#server.closeAllConnections();
    this.#server.close();
  }
}
