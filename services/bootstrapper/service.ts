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
  readonly initializer: Pick<Initializer, 'begin' | 'confirm'>;
  readonly guard: SecretGuard;
  readonly audit: Pick<AuditLog, 'append'>;
  /** The caller has the answer: the server is not needed any more. */
  readonly onConfirmed: () => void;
}

/** init.API: who knows the init secret makes this node the first of a cluster. */
export function initService(options: InitServiceOptions): Handlers<typeof API> {
  const { initializer, guard, audit, onConfirmed } = options;
  const refusals = new Refusals();

  /**
   * Who knows the secret goes on to `act`; who was admitted or refused is in the audit log before anything is answered.
   * @param check what else of the request is looked at before it is granted
   */
  async function admit<C, R>(
    event: 'init' | 'confirm-init',
    { initSecret }: { readonly initSecret: Uint8Array },
    { peer: { address } }: CallContext,
    check: () => C,
    act: (checked: C) => R | Promise<R>,
  ): Promise<R> {
    try {
      await guard.check(initSecret, address);
      const checked = check();
      await audit.append({ event, outcome: 'granted', address });
      return await act(checked);
    } catch (error) {
      const reason = error instanceof AsterismError ? error.code : 'unexpected';
      if (reason === 'ERR_INIT_SECRET') {
        // Each guess: the guard lets through few of them.
        await audit.append({ event, outcome: 'refused', address, reason });
      } else {
        // Everything else can be refused endlessly.
        const times = refusals.count(address);
        if (times !== undefined) await audit.append({ event, outcome: 'refused', address, reason, times });
      }
      throw error;
    }
  }

  /** The caller has the place of the run's listener and must leave() it. */
  const begin = (request: InitRequest, context: CallContext): Promise<InitRun> =>
    admit(
      'init',
      request,
      context,
      () => checkInitRequest(request),
      (order) => initializer.begin(order),
    );

  return {
    async init(request, context) {
      const run = await begin(request, context);
      try {
        return await Promise.race([run.result, gone(context.signal)]);
      } finally {
        run.leave();
      }
    },

    async *initStream(request, context) {
      const { signal } = context;
      const run = await begin(request, context);
      try {
        for await (const event of run.events(signal)) yield toMessage(event);
        signal.throwIfAborted();
        yield { kind: { case: 'done', value: await run.result } };
      } finally {
        run.leave();
      }
    },

    async confirmInit(request, context) {
      await admit(
        'confirm-init',
        request,
        context,
        () => {},
        () => initializer.confirm(request.clusterId),
      );
      onConfirmed();
      return {};
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
