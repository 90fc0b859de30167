import { AsterismError } from '@asterism/errors/errors';
import type { API, InitEventSchema, InitRequest } from '@asterism/rpc/gen/init_pb';
import type { CallContext, Handlers } from '@asterism/rpc/handlers';
import { StatusError } from '@asterism/rpc/status';
import type { AuditLog } from '@asterism/runtime/audit-log';
import { Refusals } from '@asterism/runtime/refusals';
import type { MessageInitShape } from '@bufbuild/protobuf';
import { checkInitRequest } from './init-request.ts';
import type { InitEventValue, InitRun } from './init-run.ts';
import type { Initializer } from './initializer.ts';
import type { SecretGuard } from './secret-guard.ts';

export interface InitServiceOptions {
  readonly initializer: Initializer;
  readonly guard: SecretGuard;
  readonly audit: Pick<AuditLog, 'append'>;
  /** The answer has left: the server is not needed any more. */
  readonly onDelivered: () => void;
}

/** init.API: who knows the init secret makes this node the first of a cluster. */
export function initService(options: InitServiceOptions): Handlers<typeof API> {
  const { initializer, guard, audit, onDelivered } = options;
  const refusals = new Refusals();

  /** Who may give this node an order, or hear how one goes, is in the audit log before anything is done or answered. */
  async function admit(request: InitRequest, { peer: { address } }: CallContext): Promise<InitRun> {
    try {
      await guard.check(request.initSecret);
      const order = checkInitRequest(request);
      await audit.append({ event: 'init', outcome: 'granted', address });
      return initializer.begin(order);
    } catch (error) {
      const reason = error instanceof AsterismError ? error.code : 'unexpected';
      // Who guesses can be refused endlessly.
      const times = refusals.count(address);
      if (times !== undefined)
        await audit.append({ event: 'init', outcome: 'refused', address, reason, times });
      throw error;
    }
  }

  return {
    async init(request, context) {
      const { signal } = context;
      const run = await admit(request, context);
      try {
        const answer = await Promise.race([run.result, gone(signal)]);
        await initializer.delivered();
        onDelivered();
        return answer;
      } finally {
        run.leave();
      }
    },

    async *initStream(request, context) {
      const { signal } = context;
      const run = await admit(request, context);
      try {
        for await (const event of run.events(signal)) yield toMessage(event);
        signal.throwIfAborted();
        const answer = await run.result;
        yield { kind: { case: 'done', value: answer } };
        // The caller asks for the next message only when it has taken this one.
        if (signal.aborted) return;
        await initializer.delivered();
        onDelivered();
      } finally {
        run.leave();
      }
    },
  };
}

function toMessage(event: InitEventValue): MessageInitShape<typeof InitEventSchema> {
  if (event.kind === 'log') return { kind: { case: 'log', value: event.line.slice(0, 4096) } };
  return { kind: { case: 'progress', value: event.report } };
}

function gone(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    const stop = (): void =>
      reject(new StatusError('CANCELLED', 'ERR_CANCELLED', 'the caller is gone; the init goes on'));
    if (signal.aborted) stop();
    else signal.addEventListener('abort', stop, { once: true });
  });
}
