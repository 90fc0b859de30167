import { readFile } from 'node:fs/promises';
import { request } from 'node:https';
import { AsterismError, UnreachableError } from '@asterism/errors/errors';
import { boundedText } from '@asterism/runtime/bounded-text';

/** A Kubernetes object as it comes; who reads one checks the fields it needs. */
export type KubernetesObject = {
  readonly metadata?: { readonly name?: string; readonly resourceVersion?: string };
} & Record<string, unknown>;

/** The API server answered with an error. */
export class KubernetesApiError extends AsterismError {
  /** HTTP status. */
  readonly status: number;

  constructor(what: string, status: number, reason: string) {
    super('ERR_KUBERNETES_API', `${what}: ${status} ${reason}`);
    this.status = status;
  }
}

/**
 * The few calls that services and the CLI make: JSON over HTTPS with a service account's token or a client certificate.
 * The official client brings a hundred megabytes of memory to each service for it.
 */
export interface KubernetesApi {
  /** @throws KubernetesApiError | UnreachableError */
  call<T extends KubernetesObject>(
    method: 'GET' | 'POST' | 'PUT' | 'DELETE',
    path: string,
    body?: unknown,
    signal?: AbortSignal,
  ): Promise<T>;
}

/** A ConfigMap, or a Secret with its values in base64. */
export interface DataObject extends KubernetesObject {
  readonly data?: Readonly<Record<string, string>>;
}

/** @returns undefined where there is no such object */
export function getIfThere<T extends KubernetesObject>(
  api: KubernetesApi,
  path: string,
  signal?: AbortSignal,
): Promise<T | undefined> {
  return orUndefined(404, api.call<T>('GET', path, undefined, signal));
}

/** @returns the object as it was made; undefined where there is one of that name already */
export function createIfAbsent<T extends KubernetesObject>(
  api: KubernetesApi,
  path: string,
  object: object,
  signal?: AbortSignal,
): Promise<T | undefined> {
  return orUndefined(409, api.call<T>('POST', path, object, signal));
}

/**
 * Compare and swap by the resource version that the object was read with.
 * @returns the object as it was written; undefined where somebody else has written since
 */
export function replaceUnchanged<T extends KubernetesObject>(
  api: KubernetesApi,
  path: string,
  object: object,
  signal?: AbortSignal,
): Promise<T | undefined> {
  return orUndefined(409, api.call<T>('PUT', path, object, signal));
}

async function orUndefined<T>(status: number, call: Promise<T>): Promise<T | undefined> {
  try {
    return await call;
  } catch (error) {
    if (error instanceof KubernetesApiError && error.status === status) return undefined;
    throw error;
  }
}

export interface KubernetesApiOptions {
  readonly host: string;
  readonly port: number;
  /** PEM; no other authority is trusted. */
  readonly ca: string;
  /** Read before each call: kubelets renew projected tokens. Not needed with a client certificate. */
  readonly token?: () => Promise<string>;
  /** PEM. */
  readonly clientCertificate?: { readonly cert: string; readonly key: string };
  readonly timeoutMs?: number;
}

const MAX_ANSWER = 8 << 20;

export function kubernetesApi(options: KubernetesApiOptions): KubernetesApi {
  return {
    async call(method, path, body, signal) {
      const payload = body === undefined ? undefined : JSON.stringify(body);
      const { status, text } = await exchange(options, method, path, payload, signal);
      const what = `${method} ${path.split('?')[0]}`;
      let json: unknown;
      try {
        json = JSON.parse(text);
      } catch (cause) {
        throw new UnreachableError(`${what}: the answer (${status}) is not JSON`, { cause });
      }
      if (status >= 300)
        throw new KubernetesApiError(
          what,
          status,
          String((json as { message?: unknown } | null)?.message ?? '').slice(0, 300),
        );
      if (typeof json !== 'object' || json === null)
        throw new UnreachableError(`${what}: the answer (${status}) is no object`);
      return json as never;
    },
  };
}

/**
 * The answer to a GET as it comes, e.g. of a pod behind the API server's proxy.
 * @throws KubernetesApiError | UnreachableError
 */
export async function getText(
  options: KubernetesApiOptions,
  path: string,
  signal?: AbortSignal,
): Promise<string> {
  const { status, text } = await exchange(options, 'GET', path, undefined, signal);
  if (status >= 300) throw new KubernetesApiError(`GET ${path.split('?')[0]}`, status, text.slice(0, 300));
  return text;
}

const ACCOUNT = '/var/run/secrets/kubernetes.io/serviceaccount';

/** The API of the cluster that this process runs in as a pod. */
export async function inClusterApi(env: NodeJS.ProcessEnv): Promise<KubernetesApi> {
  const [host, port] = [env.KUBERNETES_SERVICE_HOST, Number(env.KUBERNETES_SERVICE_PORT)];
  if (host === undefined || !Number.isInteger(port))
    throw new AsterismError('ERR_NO_CLUSTER', 'this process does not run in a Kubernetes pod');
  const ca = await readFile(`${ACCOUNT}/ca.crt`, 'utf8');
  return kubernetesApi({
    host,
    port,
    ca,
    token: async () => (await readFile(`${ACCOUNT}/token`, 'utf8')).trim(),
  });
}

async function exchange(
  options: KubernetesApiOptions,
  method: string,
  path: string,
  body: string | undefined,
  signal: AbortSignal | undefined,
): Promise<{ status: number; text: string }> {
  const token = await options.token?.();
  return new Promise((resolve, reject) => {
    const fail = (cause: Error) =>
      reject(
        new UnreachableError(`${method} ${path.split('?')[0]}: the Kubernetes API does not answer`, {
          cause,
        }),
      );
    const timeoutMs = options.timeoutMs ?? 15_000;
    const outgoing = request(
      {
        host: options.host,
        port: options.port,
        path,
        method,
        ca: options.ca,
        ...options.clientCertificate,
        timeout: timeoutMs,
        signal:
          signal === undefined
            ? AbortSignal.timeout(timeoutMs)
            : AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]),
        headers: {
          ...(token !== undefined && { authorization: `Bearer ${token}` }),
          accept: 'application/json',
          ...(body !== undefined && {
            'content-type': 'application/json',
            'content-length': Buffer.byteLength(body),
          }),
        },
      },
      (response) => {
        boundedText(response, MAX_ANSWER).then(
          (text) => resolve({ status: response.statusCode ?? 0, text }),
          fail,
        );
      },
    );
    outgoing.on('timeout', () => outgoing.destroy(new Error('timed out')));
    outgoing.on('error', fail);
    outgoing.end(body);
  });
}
