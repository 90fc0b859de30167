import { Callers } from '@asterism/key-service/callers';
import { KeyHomes } from '@asterism/key-service/key-homes';
import { defaultScopes } from '@asterism/key-service/scopes';
import { keyService, LIMITS } from '@asterism/key-service/service';
import { type ClusterKey, NO_STORE_URI, renderClusterKmsUri } from '@asterism/kms/cluster-uri';
import { openKeyHome } from '@asterism/kms/open';
import { ClusterCa } from '@asterism/kubernetes/ca';
import { API } from '@asterism/rpc/gen/keyservice_pb';
import { TlsGrpcServer } from '@asterism/rpc/tls-server';
import { AuditLog } from '@asterism/runtime/audit-log';
import { RateLimiter } from '@asterism/runtime/rate-limiter';
import { Registry } from 'prom-client';
import type { Kube } from './kube.ts';

/** Name in the certificate. */
export const KEY_SERVICE_NAME = 'key-service.kube-system.svc';

export interface RunningKeyService extends AsyncDisposable {
  readonly port: number;
}

/**
 * The real KeyService on loopback, for services that ask it. Its manifest must have been applied.
 * @param keys the master secret, or homes, which are closed with it
 * @param auditLog path of its audit log
 */
export async function startKeyService(
  kube: Kube,
  keys: ClusterKey | KeyHomes,
  auditLog: string,
): Promise<RunningKeyService> {
  const audit = await AuditLog.open(auditLog);
  const ca = await ClusterCa.load(kube.pki);
  const server = new TlsGrpcServer({
    ...(await ca.servingCertificate([KEY_SERVICE_NAME], 3_600_000)),
    ...LIMITS,
  });
  const api = await kube.as('key-service');
  const homes = keys instanceof KeyHomes ? keys : await clusterHomes(keys);
  const unlimited = () => new RateLimiter({ burst: 1e9, perSecond: 1e9 });
  server.addService(
    API,
    keyService({
      homes,
      callers: new Callers({ api, reviews: unlimited() }),
      scopes: defaultScopes(api),
      limiter: unlimited(),
      audit,
      registry: new Registry(),
    }),
  );
  const { port } = await server.listen(0, '127.0.0.1');
  return {
    port,
    async [Symbol.asyncDispose]() {
      await server.stop(500);
      await homes.close();
      await audit.close();
    },
  };
}

/** Keys of a master secret, as the KeyService holds them. */
export async function clusterHomes(master: ClusterKey): Promise<KeyHomes> {
  const homes = new KeyHomes({ open: openKeyHome, log: console });
  const home = { kmsUri: renderClusterKmsUri(master), storageUri: NO_STORE_URI };
  await homes.configure({ homes: [home] });
  return homes;
}
