import { createSecureContext } from 'node:tls';
import { ChannelCredentials } from '@grpc/grpc-js';
import { buildClient, type Client, targetOf } from './client.ts';
import type { PlainClientOptions } from './plain-client.ts';
import type { AnyService } from './service.ts';

export interface TlsClientOptions extends PlainClientOptions {
  /** PEM of the certificate authorities that the server's certificate must come from. No others are trusted. */
  readonly ca: string;
  /** Name that the certificate must be for. Default `host`. */
  readonly serverName?: string;
}

/** A gRPC client over TLS 1.3 that trusts the given CA alone. It reconnects by itself. */
export function tlsClient<S extends AnyService>(desc: S, options: TlsClientOptions): Client<S> {
  const context = createSecureContext({ ca: options.ca, minVersion: 'TLSv1.3' });
  const credentials = ChannelCredentials.createFromSecureContext(context);
  const extra =
    options.serverName === undefined ? {} : { 'grpc.ssl_target_name_override': options.serverName };
  return buildClient(desc, targetOf(options.host, options.port), credentials, options, extra).client;
}
