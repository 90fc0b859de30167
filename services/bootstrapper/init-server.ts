import { setTimeout as sleep } from 'node:timers/promises';
import type { AtlsGrpcServer } from '@asterism/rpc/atls-server';
import { API } from '@asterism/rpc/gen/init_pb';
import type { AuditLog } from '@asterism/runtime/audit-log';
import { Initializer, type InitializerOptions } from './initializer.ts';
import type { SecretGuard } from './secret-guard.ts';
import { initService } from './service.ts';

/** A server that stops in the same breath as a handler answers cuts the answer off. */
const ANSWER_LEAVES_MS = 250;

/** An order with the longest measurements, all SANs and components fits; one of ours has about 6 KiB. */
export const MAX_REQUEST_BYTES = 256 * 1024;

/** Why init is not served any more. */
export type InitEnd =
  | 'confirmed'
  /** Nobody confirmed the answer of an init that has ended. */
  | 'expired'
  /** Another machine takes the init of this cluster. */
  | 'elsewhere'
  /** The caller's signal. */
  | 'stopped';

export interface InitServerOptions extends Omit<InitializerOptions, 'onEnded' | 'onElsewhere' | 'log'> {
  readonly guard: SecretGuard;
  readonly audit: Pick<AuditLog, 'append'>;
  readonly server: AtlsGrpcServer;
  /** 0 for any free one. */
  readonly port: number;
  readonly host?: string;
  readonly log: InitializerOptions['log'] & { warn(fields: object, message: string): void };
  /** All phases are done: this node is a member, though nobody may have its answer yet. */
  readonly onEnded?: () => void;
  readonly onServing?: (initializer: Initializer, port: number) => void;
  /** Milliseconds left for the answer of an init that ended in an earlier life of the process. */
  readonly leftMs?: number;
}

/** Serves init until its answer is confirmed, or nothing is left to serve. */
export async function serveInit(options: InitServerOptions, until: AbortSignal): Promise<InitEnd> {
  const { guard, audit, server, log } = options;
  let timer: NodeJS.Timeout | undefined;
  const { promise, resolve } = Promise.withResolvers<InitEnd>();
  const expireIn = (leftMs: number): void => {
    clearTimeout(timer);
    timer = setTimeout(() => resolve('expired'), leftMs);
  };
  const initializer = new Initializer({
    ...options,
    onEnded: (leftMs) => {
      expireIn(leftMs);
      options.onEnded?.();
    },
    onElsewhere: () => resolve('elsewhere'),
  });
  const stop = (): void => resolve('stopped');
  until.addEventListener('abort', stop, { once: true });
  if (until.aborted) stop();
  if (options.leftMs !== undefined) expireIn(options.leftMs);
  server.addService(API, initService({ initializer, guard, audit, onConfirmed: () => resolve('confirmed') }));
  try {
    const { port } = await server.listen(options.port, options.host);
    log.info({ port }, 'init is served');
    options.onServing?.(initializer, port);
    const end = await promise;
    log.info({ end }, 'init is not served any more');
    if (end === 'expired') {
      log.warn({}, 'nobody confirmed to have the kubeconfig in time; it is not given any more');
      await initializer.expire();
    }
    await sleep(ANSWER_LEAVES_MS);
    return end;
  } finally {
    clearTimeout(timer);
    until.removeEventListener('abort', stop);
    await initializer.stop();
    await server.stop();
  }
}
