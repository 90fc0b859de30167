import { fromBase64, fromUtf8 } from '@asterism/bytes/encoding';
import { KUBECONFIG_FILE, type Workspace, WorkspaceError } from '@asterism/config/workspace';
import { ParseError, UnreachableError } from '@asterism/errors/errors';
import { getText, type KubernetesApi, type KubernetesObject, kubernetesApi } from '@asterism/kubernetes/api';

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
  return apiOfKubeconfig(text, workspace.path(KUBECONFIG_FILE));
}

/**
 * @param kubeconfig YAML text of the administrator's kubeconfig
 * @param name its path, for messages
 * @throws ParseError (ERR_KUBECONFIG)
 */
export async function apiOfKubeconfig(kubeconfig: string, name: string = KUBECONFIG_FILE): Promise<AdminApi> {
  // Loaded late: the client is large, and most commands do not need it.
  const { KubeConfig } = await import('@kubernetes/client-node');
  const config = new KubeConfig();
  const damaged = (why: string) =>
    new ParseError(`${name} ${why}; restore it from a copy`, { code: 'ERR_KUBECONFIG' });
  try {
    config.loadFromString(kubeconfig);
  } catch {
    // The parser's own message quotes the text, which holds a private key.
    throw damaged('is no kubeconfig');
  }
  const cluster = config.getCurrentCluster();
  const user = config.getCurrentUser();
  if (!cluster?.caData || !user?.certData || !user.keyData || !URL.canParse(cluster.server))
    throw damaged('has no server, authority and client certificate in it');
  const pem = (data: string) => {
    try {
      return fromUtf8(fromBase64(data));
    } catch {
      throw damaged('has a certificate or key that is not base64');
    }
  };
  const { hostname, port } = new URL(cluster.server);
  const options = {
    // An IPv6 address as connections take it.
    host: hostname.replace(/^\[(.*)\]$/, '$1'),
    port: Number(port || 443),
    ca: pem(cluster.caData),
    clientCertificate: { cert: pem(user.certData), key: pem(user.keyData) },
  };
  const api = kubernetesApi(options);
  const explained = async <T>(work: Promise<T>, signal: AbortSignal | undefined): Promise<T> => {
    try {
      return await work;
    } catch (cause) {
      signal?.throwIfAborted();
      if (!(cause instanceof UnreachableError)) throw cause;
      throw new UnreachableError(
        `${cluster.server}: ${cause.message}. Do the machines run? See: asterism status`,
        {
          cause,
        },
      );
    }
  };
  return {
    call: (method, path, body, signal) => explained(api.call(method, path, body, signal), signal),
    text: (path, signal) => explained(getText(options, path, signal), signal),
  };
}

interface Page extends KubernetesObject {
  readonly metadata?: { readonly name?: string; readonly continue?: string };
  readonly items?: readonly unknown[];
}

/**
 * Every object of a list, fetched in pages: an answer is bounded.
 * @param T the fields that the caller looks at; the API server may leave out each
 */
export async function* listed<T>(
  api: KubernetesApi,
  path: string,
  perPage: number,
  signal: AbortSignal,
): AsyncIterable<T> {
  let next = '';
  do {
    const from = next === '' ? '' : `&continue=${encodeURIComponent(next)}`;
    const page = await api.call<Page>('GET', `${path}?limit=${perPage}${from}`, undefined, signal);
    yield* (page.items ?? []) as readonly T[];
    next = page.metadata?.continue ?? '';
  } while (next !== '');
}
