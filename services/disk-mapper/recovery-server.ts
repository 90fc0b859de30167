import { setTimeout as sleep } from 'node:timers/promises';
import type { AtlsGrpcServer } from '@asterism/rpc/atls-server';
import { API } from '@asterism/rpc/gen/recover_pb';
import { type RecoveryServiceOptions, recoveryService } from './service.ts';
import { untilAborted, untilItWorks } from './until.ts';

export const RECOVERY_PORT = 9999;
/** A server that stops in the same breath as a handler answers cuts the answer off. */
const ANSWER_LEAVES_MS = 250;

export interface RecoveryServerOptions extends Omit<RecoveryServiceOptions, 'onRecovered'> {
  readonly log: RecoveryServiceOptions['log'] & { warn(fields: object, message: string): void };
}

/**
 * Serves recovery until somebody recovers the node or the signal aborts. A refused attempt, or a port that is taken
 * for a while, does not end it.
 */
export async function serveRecovery(
  makeServer: () => AtlsGrpcServer,
  options: RecoveryServerOptions,
  signal: AbortSignal,
  port = RECOVERY_PORT,
): Promise<void> {
  const { promise: recovered, resolve: onRecovered } = Promise.withResolvers<void>();
  const service = recoveryService({ ...options, onRecovered });
  const server = await untilItWorks(
    async () => {
      const made = makeServer();
      made.addService(API, service);
      try {
        const { port: bound } = await made.listen(port);
        options.log.info({ port: bound }, 'recovery is served');
      } catch (error) {
        await made.stop(0);
        throw error;
      }
      return made;
    },
    (err) => options.log.warn({ err, port }, 'recovery cannot be served yet; it is tried again'),
    signal,
  );
  try {
    await Promise.race([recovered, untilAborted(signal)]);
    await sleep(ANSWER_LEAVES_MS);
  } finally {
    await server.stop();
  }
}
