import type { AsterismError } from '@asterism/errors/errors';
import type { DescMethod, MessageInitShape, MessageShape } from '@bufbuild/protobuf';
import { fromBinary } from '@bufbuild/protobuf';
import { type ChannelCredentials, type ClientOptions, Client as GrpcClient, Metadata } from '@grpc/grpc-js';
import { type AnyService, type MethodsOf, pathOf, serialize } from './service.ts';
import { fromStatus } from './status.ts';

export interface CallOptions {
  /** Milliseconds until the call is given up. Default: the client's. */
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
  /** Request headers, names in lower case. */
  readonly headers?: Readonly<Record<string, string>>;
}

/** The methods of a service, and the end of the connection. */
export type Client<S> = {
  [K in keyof MethodsOf<S>]: MethodsOf<S>[K] extends { methodKind: 'server_streaming' }
    ? (
        request: MessageInitShape<MethodsOf<S>[K]['input']>,
        options?: CallOptions,
      ) => AsyncIterable<MessageShape<MethodsOf<S>[K]['output']>>
    : (
        request: MessageInitShape<MethodsOf<S>[K]['input']>,
        options?: CallOptions,
      ) => Promise<MessageShape<MethodsOf<S>[K]['output']>>;
} & {
  /** Cuts the connection; running calls fail. */
  close(): void;
};

export interface ClientLimits {
  /** Milliseconds that a call may take where it does not say otherwise. Default 30,000. */
  readonly callTimeoutMs?: number;
  /** Largest message in bytes, either way. Default 4 MiB. */
  readonly maxMessageBytes?: number;
  /** Headers for every call, made anew for each (a token that is renewed, say). */
  readonly headers?: () => Promise<Readonly<Record<string, string>>>;
}

const KEEPALIVE_MS = 15_000;
const KEEPALIVE_TIMEOUT_MS = 10_000;

/** Options that every channel of ours has: no proxy from the environment, no configuration from DNS, no retries. */
export function channelOptions(limits: ClientLimits): ClientOptions {
  const maxMessageBytes = limits.maxMessageBytes ?? 4 * 1024 * 1024;
  return {
    'grpc.enable_http_proxy': 0,
    'grpc.use_local_subchannel_pool': 1,
    'grpc.service_config_disable_resolution': 1,
    'grpc.enable_retries': 0,
    'grpc.enable_channelz': 0,
    'grpc.keepalive_time_ms': KEEPALIVE_MS,
    'grpc.keepalive_timeout_ms': KEEPALIVE_TIMEOUT_MS,
    'grpc.initial_reconnect_backoff_ms': 250,
    'grpc.max_reconnect_backoff_ms': 5000,
    'grpc.max_receive_message_length': maxMessageBytes,
    'grpc.max_send_message_length': maxMessageBytes,
  };
}

/** `host:port` as gRPC targets want it: IPv6 in brackets. */
export function targetOf(host: string, port: number): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
}

/** A client and the grpc-js client below it. */
export interface BuiltClient<S> {
  readonly client: Client<S>;
  readonly channel: GrpcClient;
}

/**
 * @param explain turns a failed call into a better error where it knows one
 */
export function buildClient<S extends AnyService>(
  desc: S,
  target: string,
  credentials: ChannelCredentials,
  limits: ClientLimits,
  extra: ClientOptions = {},
  explain: (error: AsterismError) => AsterismError = (error) => error,
): BuiltClient<S> {
  const channel = new GrpcClient(target, credentials, { ...channelOptions(limits), ...extra });
  const methods: Record<string, unknown> = { close: () => channel.close() };
  for (const method of Object.values<DescMethod>(desc.method)) {
    const what = `${desc.typeName}/${method.name} at ${target}`;
    const call = method.methodKind === 'server_streaming' ? streaming : unary;
    methods[method.localName] = call(channel, method, limits, (error) => explain(fromStatus(error, what)));
  }
  return { client: methods as Client<S>, channel };
}

function unary(
  channel: GrpcClient,
  method: DescMethod,
  limits: ClientLimits,
  fail: (error: unknown) => Error,
) {
  return async (request: MessageInitShape<typeof method.input>, options: CallOptions = {}) => {
    const metadata = await headers(limits, options);
    return await new Promise((resolve, reject) => {
      const call = channel.makeUnaryRequest(
        pathOf(method),
        (message: typeof request) => serialize(method.input, message),
        (bytes: Buffer) => fromBinary(method.output, bytes),
        request,
        metadata,
        { deadline: deadline(limits, options) },
        (error, response) => {
          options.signal?.removeEventListener('abort', cancel);
          if (error === null) resolve(response);
          else reject(fail(error));
        },
      );
      const cancel = () => call.cancel();
      options.signal?.addEventListener('abort', cancel, { once: true });
    });
  };
}

function streaming(
  channel: GrpcClient,
  method: DescMethod,
  limits: ClientLimits,
  fail: (error: unknown) => Error,
) {
  return async function* (request: MessageInitShape<typeof method.input>, options: CallOptions = {}) {
    const metadata = await headers(limits, options);
    const call = channel.makeServerStreamRequest(
      pathOf(method),
      (message: typeof request) => serialize(method.input, message),
      (bytes: Buffer) => fromBinary(method.output, bytes),
      request,
      metadata,
      { deadline: deadline(limits, options) },
    );
    const cancel = () => call.cancel();
    options.signal?.addEventListener('abort', cancel, { once: true });
    try {
      for await (const message of call) yield message as MessageShape<typeof method.output>;
    } catch (error) {
      throw fail(error);
    } finally {
      options.signal?.removeEventListener('abort', cancel);
      // Does nothing to a call that has ended; ends one whose reader stopped early.
      call.cancel();
    }
  };
}

/** @throws the signal's reason when that aborts before the headers are there */
async function headers(limits: ClientLimits, options: CallOptions): Promise<Metadata> {
  options.signal?.throwIfAborted();
  const metadata = new Metadata();
  const all = { ...(await limits.headers?.()), ...options.headers };
  options.signal?.throwIfAborted();
  for (const [name, value] of Object.entries(all)) metadata.set(name, value);
  return metadata;
}

function deadline(limits: ClientLimits, options: CallOptions): number {
  return Date.now() + (options.timeoutMs ?? limits.callTimeoutMs ?? 30_000);
}
