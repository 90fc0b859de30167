import { readFile } from 'node:fs/promises';
import { AsterismError } from '@asterism/errors/errors';
import { API } from '@asterism/rpc/gen/keyservice_pb';
import { tlsClient } from '@asterism/rpc/tls-client';
import type { DataKeys } from './disk-keys.ts';

const KEY_BYTES = 32;

export interface KeyClientOptions {
  readonly host: string;
  readonly port: number;
  /** PEM of the cluster's CA. */
  readonly ca: string;
  readonly serverName: string;
  /** File with a service-account token for the audience of the KeyService; renewed by the kubelet. */
  readonly tokenFile: string;
}

/** Asks the KeyService, showing this service's own token. */
export function keyClient(options: KeyClientOptions): { readonly dataKeys: DataKeys; close(): void } {
  const client = tlsClient(API, { ...options, callTimeoutMs: 15_000 });
  return {
    async dataKeys({ id, generation, onBehalfOf }, signal) {
      const token = (await readFile(options.tokenFile, 'utf8')).trim();
      const answer = await client.getDataKey(
        { dataKeyId: id, length: KEY_BYTES, generation, onBehalfOf },
        { signal, headers: { authorization: `Bearer ${token}` } },
      );
      const { dataKey, envelope } = answer;
      if (answer.generation === 0)
        throw new AsterismError(
          'ERR_KEY_GENERATION',
          'the KeyService does not say of which generation a key is',
        );
      if (dataKey.length !== KEY_BYTES)
        throw new AsterismError(
          'ERR_KEY_LENGTH',
          `the KeyService gave ${dataKey.length} bytes instead of ${KEY_BYTES}`,
        );
      return { dataKey, envelope, generation: answer.generation };
    },
    close: () => client.close(),
  };
}
