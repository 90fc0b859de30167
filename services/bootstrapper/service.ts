import type { API, InitEventSchema } from '@asterism/rpc/gen/init_pb';
import type { Handlers } from '@asterism/rpc/handlers';
import { StatusError } from '@asterism/rpc/status';
import type { MessageInitShape } from '@bufbuild/protobuf';
import { checkInitRequest } from './init-request.ts';
import type { InitEventValue } from './init-run.ts';
import type { Initializer } from './initializer.ts';
import type { SecretGuard } from './secret-guard.ts';

export interface InitServiceOptions {
  readonly initializer: Initializer;
  readonly guard: SecretGuard;
  /** The answer has left: the server is not needed any more. */
  readonly onDelivered: () => void;
}

/** init.API: who knows the init secret makes this node the first of a cluster. */
export function initService({ initializer, guard, onDelivered }: InitServiceOptions): Handlers<typeof API> {
  return {
    async init(request, { signal }) {
      await guard.check(request.initSecret);
      const run = initializer.begin(checkInitRequest(request));
      try {
        const answer = await Promise.race([run.result, gone(signal)]);
        await initializer.delivered();
        onDelivered();
        return answer;
      } finally {
        run.leave();
      }
    },

    async *initStream(request, { signal }) {
      await guard.check(request.initSecret);
      const run = initializer.begin(checkInitRequest(request));
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
