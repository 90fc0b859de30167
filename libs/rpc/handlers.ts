import type { Verdict } from '@asterism/attestation/types';
import type { DescMethod, MessageInitShape, MessageShape } from '@bufbuild/protobuf';
import type {
  ServerUnaryCall,
  ServerWritableStream,
  sendUnaryData,
  UntypedServiceImplementation,
} from '@grpc/grpc-js';
import type { AnyService, MethodsOf } from './service.ts';
import { type RpcLog, StatusError, toStatus } from './status.ts';

/** Who is at the other end of the connection that a call came by. */
export interface Peer {
  /** IP address without port; IPv4 in its own form even on a dual-stack socket. */
  readonly address: string;
  /** What was found when the connection was made. Undefined where the server asks for no evidence. */
  readonly verdict: Verdict | undefined;
}

/** A connection as its calls see it. One with handlers at work is not given up for another. */
export interface ServedConnection {
  readonly peer: Peer;
  /** Handlers at work. */
  running: number;
}

export interface CallContext {
  readonly peer: Peer;
  /** Aborts when the caller cancels, is gone, or its deadline has passed. */
  readonly signal: AbortSignal;
  /** The caller's deadline in milliseconds since 1970; Infinity without one. */
  readonly deadline: number;
  /** First value of a request header, by its lower-case name. */
  header(name: string): string | undefined;
}

/** One async function per unary method, one async iterable per server-streaming method. */
export type Handlers<S> = {
  [K in keyof MethodsOf<S>]: MethodsOf<S>[K] extends { methodKind: 'server_streaming' }
    ? (
        request: MessageShape<MethodsOf<S>[K]['input']>,
        context: CallContext,
      ) => AsyncIterable<MessageInitShape<MethodsOf<S>[K]['output']>>
    : (
        request: MessageShape<MethodsOf<S>[K]['input']>,
        context: CallContext,
      ) => Promise<MessageInitShape<MethodsOf<S>[K]['output']>>;
};

type Unary = (request: unknown, context: CallContext) => Promise<unknown>;
type Streaming = (request: unknown, context: CallContext) => AsyncIterable<unknown>;

/** The handlers of a service as grpc-js calls them, for connections of one peer. */
export function implementation(
  desc: AnyService,
  handlers: Record<string, unknown>,
  connection: ServedConnection,
  log: RpcLog | undefined,
): UntypedServiceImplementation {
  const calls: UntypedServiceImplementation = {};
  for (const method of Object.values<DescMethod>(desc.method)) {
    const handler = handlers[method.localName];
    if (typeof handler !== 'function')
      throw new TypeError(`no handler for ${desc.typeName}.${method.localName}`);
    const name = `${desc.typeName}/${method.name}`;
    if (method.methodKind === 'unary')
      calls[method.localName] = unary(handler.bind(handlers) as Unary, name, connection, log) as never;
    else if (method.methodKind === 'server_streaming')
      calls[method.localName] = streaming(
        handler.bind(handlers) as Streaming,
        name,
        connection,
        log,
      ) as never;
    else throw new TypeError(`${name} is ${method.methodKind}, which no service of ours uses`);
  }
  return calls;
}

function unary(handler: Unary, name: string, connection: ServedConnection, log: RpcLog | undefined) {
  return (call: ServerUnaryCall<unknown, unknown>, respond: sendUnaryData<unknown>): void => {
    const { context, done } = contextOf(call, connection);
    (async () => handler(call.request, context))()
      .then(
        (response) => respond(null, response),
        (error) => respond(toStatus(cancelled(error, context), name, log)),
      )
      .finally(done);
  };
}

function streaming(handler: Streaming, name: string, connection: ServedConnection, log: RpcLog | undefined) {
  return (call: ServerWritableStream<unknown, unknown>): void => {
    const { context, done } = contextOf(call, connection);
    const { signal } = context;
    const send = async () => {
      for await (const message of handler(call.request, context)) {
        if (signal.aborted) return;
        if (!call.write(message)) await drained(call, signal);
      }
      call.end();
    };
    send()
      .catch((error) => call.emit('error', toStatus(cancelled(error, context), name, log)))
      .finally(done);
  };
}

/** A handler that failed because its caller went away has not failed unexpectedly. */
function cancelled(error: unknown, { signal }: CallContext): unknown {
  return signal.aborted && (error as Error | undefined)?.name === 'AbortError'
    ? new StatusError('CANCELLED', 'ERR_CANCELLED', 'the call was cancelled', { cause: error })
    : error;
}

type AnyCall = ServerUnaryCall<unknown, unknown> | ServerWritableStream<unknown, unknown>;

function contextOf(call: AnyCall, connection: ServedConnection): { context: CallContext; done: () => void } {
  const controller = new AbortController();
  connection.running++;
  const abort = () => controller.abort();
  call.once('cancelled', abort);
  if (call.cancelled) abort();
  const context: CallContext = {
    peer: connection.peer,
    signal: controller.signal,
    deadline: Number(call.getDeadline()),
    header(name) {
      const [value] = call.metadata.get(name);
      return value?.toString();
    },
  };
  const done = (): void => {
    connection.running--;
    call.removeListener('cancelled', abort);
  };
  return { context, done };
}

function drained(call: ServerWritableStream<unknown, unknown>, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const go = () => {
      call.removeListener('drain', go);
      signal.removeEventListener('abort', go);
      resolve();
    };
    call.once('drain', go);
    signal.addEventListener('abort', go, { once: true });
  });
}
