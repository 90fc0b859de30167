import { fromBase64 } from '@asterism/bytes/encoding';
import { UnreachableError } from '@asterism/errors/errors';
import { type KubernetesApi, KubernetesApiError, type KubernetesObject } from '@asterism/kubernetes/api';
import { checkObject } from '../../checks.ts';
import { KmsError, KmsUnavailableError } from '../../errors.ts';
import { type DekStore, MAX_OBJECT_BYTES, type StoredObject } from '../../store.ts';
import { ID_ANNOTATION, KEYS_NAMESPACE, secretName, secretOf, WRAPPED_DEK_TYPE } from './secret.ts';

const SECRETS = `/api/v1/namespaces/${KEYS_NAMESPACE}/secrets`;
const EXCHANGE_MS = 10_000;
/** The API client reads 8 MiB, and an object may have 64 KiB. */
const PAGE = 50;

interface Secret extends KubernetesObject {
  readonly type?: string;
  readonly metadata?: {
    readonly name?: string;
    readonly resourceVersion?: string;
    readonly annotations?: Readonly<Record<string, string>>;
  };
  readonly data?: { readonly envelope?: string };
}

interface SecretList extends KubernetesObject {
  readonly metadata?: { readonly name?: string; readonly continue?: string };
  readonly items?: readonly Secret[];
}

/** A Secret for each wrapped DEK, in the namespace {@link KEYS_NAMESPACE}, which must be there. */
export function kubernetesStore(api: KubernetesApi): DekStore {
  const call = async <T extends KubernetesObject>(
    method: 'GET' | 'POST' | 'PUT' | 'DELETE',
    path: string,
    body: unknown,
    signal: AbortSignal | undefined,
  ): Promise<T> => {
    const timeout = AbortSignal.timeout(EXCHANGE_MS);
    try {
      return await api.call<T>(
        method,
        path,
        body,
        signal === undefined ? timeout : AbortSignal.any([signal, timeout]),
      );
    } catch (error) {
      signal?.throwIfAborted();
      throw error;
    }
  };

  return {
    async get(name, signal) {
      checkObject(name);
      try {
        return read(name, await call<Secret>('GET', `${SECRETS}/${secretName(name)}`, undefined, signal));
      } catch (error) {
        if (statusOf(error) === 404) return undefined;
        throw failure(error);
      }
    },

    async create(name, bytes, signal) {
      checkObject(name, bytes);
      try {
        await call('POST', SECRETS, secretOf(name, bytes), signal);
        return 'created';
      } catch (error) {
        if (statusOf(error) === 409) return 'exists';
        throw failure(error);
      }
    },

    async replace(name, bytes, version, signal) {
      checkObject(name, bytes);
      try {
        await call('PUT', `${SECRETS}/${secretName(name)}`, secretOf(name, bytes, version), signal);
        return 'replaced';
      } catch (error) {
        if ([404, 409].includes(statusOf(error) ?? 0)) return 'changed';
        throw failure(error);
      }
    },

    async *list(signal) {
      let token: string | undefined;
      let last = '';
      for (;;) {
        const query = new URLSearchParams({
          limit: String(PAGE),
          fieldSelector: `type=${WRAPPED_DEK_TYPE}`,
          ...(token !== undefined && { continue: token }),
        });
        let page: SecretList;
        try {
          page = await call<SecretList>('GET', `${SECRETS}?${query}`, undefined, signal);
        } catch (error) {
          // A listing is good for five minutes. They come in the order of their names, so a new one goes on.
          if (statusOf(error) !== 410 || token === undefined) throw failure(error);
          token = undefined;
          continue;
        }
        for (const { metadata } of page.items ?? []) {
          const id = metadata?.annotations?.[ID_ANNOTATION];
          const name = metadata?.name ?? '';
          if (name <= last) continue;
          last = name;
          if (id !== undefined && secretName(id) === name) yield id;
        }
        token = page.metadata?.continue || undefined;
        if (token === undefined) return;
      }
    },

    async remove(name, version, signal) {
      checkObject(name);
      try {
        await call(
          'DELETE',
          `${SECRETS}/${secretName(name)}`,
          { apiVersion: 'v1', kind: 'DeleteOptions', preconditions: { resourceVersion: version } },
          signal,
        );
        return 'removed';
      } catch (error) {
        if (statusOf(error) === 404) return 'removed';
        if (statusOf(error) === 409) return 'changed';
        throw failure(error);
      }
    },

    close: async () => {},
  };
}

function read(id: string, { type, metadata, data }: Secret): StoredObject {
  const { annotations, resourceVersion } = metadata ?? {};
  const text = data?.envelope;
  const foreign = (why: string, cause?: unknown) =>
    new KmsError(
      'ERR_STORE_ANSWER',
      `the Secret ${secretName(id)} in ${KEYS_NAMESPACE} is not the wrapped key ${id}: ${why}`,
      { cause },
    );
  if (type !== WRAPPED_DEK_TYPE || annotations?.[ID_ANNOTATION] !== id)
    throw foreign(`its type or its annotation ${ID_ANNOTATION} is another`);
  if (typeof resourceVersion !== 'string' || typeof text !== 'string') throw foreign('a field is missing');
  if (text.length > Math.ceil(MAX_OBJECT_BYTES / 3) * 4) throw foreign('it is too large');
  try {
    return { bytes: fromBase64(text), version: resourceVersion };
  } catch (cause) {
    throw foreign('it is not base64', cause);
  }
}

function statusOf(error: unknown): number | undefined {
  return error instanceof KubernetesApiError ? error.status : undefined;
}

/** What the Kubernetes API did, in the words of a store. Its messages name objects, not their contents. */
function failure(error: unknown): unknown {
  const options = { cause: error };
  if (error instanceof UnreachableError)
    return new KmsUnavailableError('ERR_STORE_UNAVAILABLE', 'the Kubernetes API does not answer', options);
  switch (statusOf(error)) {
    case undefined:
      return error;
    case 401:
      return new KmsError(
        'ERR_STORE_CREDENTIALS',
        'the Kubernetes API does not know who asks for wrapped keys',
        options,
      );
    case 403:
      return new KmsError(
        'ERR_STORE_DENIED',
        `the Kubernetes API does not let this service account use Secrets of ${KEYS_NAMESPACE}: see its Role`,
        options,
      );
    case 404:
      return new KmsError('ERR_STORE_NOT_FOUND', `there is no namespace ${KEYS_NAMESPACE}`, options);
    case 429:
      return new KmsUnavailableError('ERR_STORE_THROTTLED', 'the Kubernetes API is too busy', options);
    default:
      return statusOf(error)! >= 500
        ? new KmsUnavailableError('ERR_STORE_UNAVAILABLE', 'the Kubernetes API failed', options)
        : new KmsError('ERR_STORE_ANSWER', 'the Kubernetes API refused a wrapped key', options);
  }
}
