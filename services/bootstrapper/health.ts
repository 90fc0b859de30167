import type { Server } from 'node:http';
import { serveHealth } from '@asterism/runtime/health-server';
import { Gauge, Registry } from 'prom-client';

/** What the node is doing: for /readyz and the metric. */
const PHASES = [
  'starting',
  'waiting',
  'initialising',
  'joining',
  /** A member by an init whose answer is not confirmed yet. */
  'delivering',
  'member',
  'failed',
] as const;
export type NodePhase = (typeof PHASES)[number];

/** Health of the bootstrapper. Ready: the node can be initialised, is becoming a member, or is one. */
export class Health {
  #phase: NodePhase = 'starting';
  readonly #registry = new Registry();
  readonly #gauge: Gauge;
  #server: Server | undefined;

  constructor() {
    this.#gauge = new Gauge({
      name: 'asterism_bootstrapper_phase',
      help: '1 for what this node is doing',
      labelNames: ['phase'],
      registers: [this.#registry],
    });
    this.set('starting');
  }

  set(phase: NodePhase): void {
    this.#phase = phase;
    for (const each of PHASES) this.#gauge.set({ phase: each }, each === phase ? 1 : 0);
  }

  async listen(port: number): Promise<void> {
    const missing = () => (this.#phase === 'starting' || this.#phase === 'failed' ? this.#phase : undefined);
    this.#server = await serveHealth({ port, registry: this.#registry, missing });
  }

  close(): void {
    this.#server?.closeAllConnections();
    this.#server?.close();
  }
}
