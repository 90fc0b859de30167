import { readFile } from 'node:fs/promises';
import { AsterismError } from '@asterism/errors/errors';
import { API } from '@asterism/rpc/gen/keyservice_pb';
import { tlsClient } from '@asterism/rpc/tls-client';
import type { DataKeys } from './service.ts';

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
    async dataKeys(id, length, signal) {
      const token = (await readFile(options.tokenFile, 'utf8')).trim();
      const { dataKey } = await client.getDataKey(
        { dataKeyId: id, length },
        { signal, headers: { authorization: `Bearer ${token}` } },
      );
      if (dataKey.length !== length)
        throw new AsterismError(
          'ERR_KEY_LENGTH',
          `the KeyService gave ${dataKey.length} bytes instead of ${length}`,
        );
      return dataKey;
    },
    close: () => client.close(),
  };
}
