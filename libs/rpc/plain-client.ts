import { ChannelCredentials } from '@grpc/grpc-js';
import { buildClient, type Client, type ClientLimits, targetOf } from './client.ts';
import type { AnyService } from './service.ts';

export interface PlainClientOptions extends ClientLimits {
  readonly host: string;
  readonly port: number;
}

/** A gRPC client without TLS. */
export function plainClient<S extends AnyService>(desc: S, options: PlainClientOptions): Client<S> {
  const credentials = ChannelCredentials.createInsecure();
  return buildClient(desc, targetOf(options.host, options.port), credentials, options).client;
}
