import { setTimeout as sleep } from 'node:timers/promises';
import type { AtlsGrpcServer } from '@asterism/rpc/atls-server';
import { API } from '@asterism/rpc/gen/recover_pb';
import { type RecoveryServiceOptions, recoveryService } from './service.ts';

export const RECOVERY_PORT = 9999;
/** A server that stops in the same breath as a handler answers cuts the answer off. */
const ANSWER_LEAVES_MS = 250;

/**
 * Serves recovery until somebody recovers the node or the signal aborts. A refused attempt, or a port that is
 * taken for a moment, does not end it.
 */
export async function serveRecovery(
  makeServer: () => AtlsGrpcServer,
  options: Omit<RecoveryServiceOptions, 'onRecovered'>,
  signal: AbortSignal,
  port = RECOVERY_PORT,
): Promise<void> {
  const server = makeServer();
  const recovered = new Promise<void>((resolve, reject) => {
    const stop = (): void => reject(signal.reason);
    if (signal.aborted) stop();
    else signal.addEventListener('abort', stop, { once: true });
    server.addService(API, recoveryService({ ...options, onRecovered: resolve }));
  });
  recovered.catch(() => {});
  const { port: bound } = await server.listen(port);
  options.log.info({ port: bound }, 'recovery is served');
  try {
    await recovered;
    await sleep(ANSWER_LEAVES_MS);
  } finally {
    await server.stop();
  }
}
