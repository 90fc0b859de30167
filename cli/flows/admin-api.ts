import { fromBase64, fromUtf8 } from '@asterism/bytes/encoding';
import { KUBECONFIG_FILE, type Workspace, WorkspaceError } from '@asterism/config/workspace';
import { ParseError } from '@asterism/errors/errors';
import { getText, type KubernetesApi, kubernetesApi } from '@asterism/kubernetes/api';

/** The cluster's API with the administrator's rights. */
export interface AdminApi extends KubernetesApi {
  /** The answer to a GET as it comes. */
  text(path: string, signal?: AbortSignal): Promise<string>;
}

/** @throws WorkspaceError (ERR_NO_CLUSTER) there is no kubeconfig; ParseError (ERR_KUBECONFIG) */
export async function adminApi(workspace: Workspace): Promise<AdminApi> {
  const text = await workspace.read(KUBECONFIG_FILE);
  if (text === undefined) {
    throw new WorkspaceError(
      'ERR_NO_CLUSTER',
      `${workspace.path(KUBECONFIG_FILE)} does not exist; the cluster is made by: asterism init`,
    );
  }
  // Loaded late: the client is large, and most commands do not need it.
  const { KubeConfig } = await import('@kubernetes/client-node');
  const config = new KubeConfig();
  config.loadFromString(text);
  const cluster = config.getCurrentCluster();
  const user = config.getCurrentUser();
  if (!cluster?.caData || !user?.certData || !user.keyData || !URL.canParse(cluster.server)) {
    throw new ParseError(
      `${workspace.path(KUBECONFIG_FILE)} has no server, authority and client certificate in it; restore it from a copy`,
      { code: 'ERR_KUBECONFIG' },
    );
  }
  const pem = (data: string) => fromUtf8(fromBase64(data));
  const { hostname, port } = new URL(cluster.server);
  const options = {
    host: hostname,
    port: Number(port || 443),
    ca: pem(cluster.caData),
    clientCertificate: { cert: pem(user.certData), key: pem(user.keyData) },
  };
  return { ...kubernetesApi(options), text: (path, signal) => getText(options, path, signal) };
}
