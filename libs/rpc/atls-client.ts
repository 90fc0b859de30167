import type { Issuer, Verdict, Verifier } from '@asterism/attestation/types';
import { UnreachableError } from '@asterism/errors/errors';
import { connectivityState } from '@grpc/grpc-js';
import { AtlsCredentials } from './atls-credentials.ts';
import { buildClient, type Client, type ClientLimits, targetOf } from './client.ts';
import type { AnyService } from './service.ts';

export interface AtlsClientOptions extends ClientLimits {
  readonly host: string;
  readonly port: number;
  /** Makes this machine's evidence for a server that asks for it. */
  readonly issuer?: Issuer;
  /** Judge the server's evidence. An empty list accepts any server. */
  readonly verifiers: readonly Verifier[];
  /** Milliseconds for connecting and the handshake. Default 15,000. */
  readonly handshakeTimeoutMs?: number;
}

export type AtlsClient<S> = Client<S> & {
  /**
   * Connects if need be.
   *
   * @returns what was found of the server; undefined exactly when there were no verifiers
   * @throws VerificationError | PolicyError | UnreachableError why there is no connection
   */
  peer(): Promise<Verdict | undefined>;
};

/**
 * A gRPC client over one aTLS connection. It never connects a second time: when the connection is over, every call
 * fails and a new client must be made, so that no call reaches a machine other than the one of `peer()`.
 *
 * Calls fail with the error of the handshake (VerificationError, PolicyError) where that is the reason.
 */
export function atlsClient<S extends AnyService>(desc: S, options: AtlsClientOptions): AtlsClient<S> {
  const { host, port, issuer, verifiers } = options;
  const timeoutMs = options.handshakeTimeoutMs ?? 15_000;
  const credentials = new AtlsCredentials({ verifiers, timeoutMs, ...(issuer && { issuer }) });
  const target = targetOf(host, port);
  const { client, channel } = buildClient(desc, target, credentials, options, {}, (error) =>
    // Of a call that was answered the answer counts; one that found no connection fails for the connection's reason.
    error instanceof UnreachableError ? (credentials.failure ?? error) : error,
  );

  async function peer(): Promise<Verdict | undefined> {
    const limit = Date.now() + timeoutMs;
    for (;;) {
      if (credentials.failure !== undefined) throw credentials.failure;
      if (credentials.peer !== undefined) return credentials.peer.verdict;
      const state = channel.getChannel().getConnectivityState(true);
      if (state === connectivityState.TRANSIENT_FAILURE || state === connectivityState.SHUTDOWN)
        throw new UnreachableError(`cannot connect to ${target}`);
      await change(state, limit);
    }
  }

  function change(state: connectivityState, limit: number): Promise<void> {
    return new Promise((resolve, reject) => {
      channel.getChannel().watchConnectivityState(state, limit, (error) => {
        if (error === undefined || error === null) resolve();
        else
          reject(
            new UnreachableError(`${target} did not answer in ${timeoutMs} ms`, { code: 'ERR_ATLS_TIMEOUT' }),
          );
      });
    });
  }

  return Object.assign(client, { peer });
}
