import { AsterismError, UnreachableError } from '@asterism/errors/errors';
import type { CoreV1Api } from '@kubernetes/client-node';

const CALL_TIMEOUT_MS = 10_000;

/** The API server answered with an error. */
export class KubernetesRefusal extends AsterismError {
  /** HTTP status. */
  readonly status: number;

  constructor(message: string, status: number, options: { cause: unknown }) {
    super('ERR_KUBERNETES', message, options);
    this.status = status;
  }
}

/**
 * Makes one call to the Kubernetes API.
 *
 * @param kubeconfig YAML text of the administrator's kubeconfig
 * @param what the call is, for messages: "a list of nodes"
 * @throws UnreachableError the API server does not answer; KubernetesRefusal it answers with an error
 */
export async function callKubernetes<T>(
  kubeconfig: string,
  what: string,
  call: (api: CoreV1Api) => Promise<T>,
  signal: AbortSignal,
): Promise<T> {
  // Loaded late: the client is large, and most commands do not need it.
  const { ApiException, CoreV1Api, KubeConfig } = await import('@kubernetes/client-node');
  const config = new KubeConfig();
  config.loadFromString(kubeconfig);
  const server = config.getCurrentCluster()?.server ?? 'the API server';
  const api = config.makeApiClient(CoreV1Api);
  // The client takes no signal of ours; what is left of a call that is given up ends with its socket.
  const timeout = AbortSignal.any([signal, AbortSignal.timeout(CALL_TIMEOUT_MS)]);
  const givenUp = new Promise<never>((_, reject) => {
    timeout.addEventListener('abort', () => reject(timeout.reason), { once: true });
  });
  try {
    return await Promise.race([call(api), givenUp]);
  } catch (cause) {
    signal.throwIfAborted();
    if (cause instanceof ApiException)
      throw new KubernetesRefusal(`${server} answered ${cause.code} to ${what}`, cause.code, { cause });
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new UnreachableError(
      `${server} does not answer (${why}); are the machines running? See: asterism status`,
      { cause },
    );
  }
}
