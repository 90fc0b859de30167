import { randomInt } from 'node:crypto';
import type { KubernetesApi } from './api.ts';

const ALPHABET = 'abcdefghijklmnopqrstuvwxyz0123456789';

/** Time a node has to join with its ticket. */
export const TOKEN_LIFETIME_MS = 15 * 60_000;

/** Makes a bootstrap token that a kubelet can join with once it has a ticket. @returns `id.secret` */
export async function createBootstrapToken(
  api: KubernetesApi,
  description: string,
  signal?: AbortSignal,
): Promise<string> {
  const random = (length: number) =>
    Array.from({ length }, () => ALPHABET[randomInt(ALPHABET.length)]).join('');
  const [id, secret] = [random(6), random(16)];
  await api.call(
    'POST',
    '/api/v1/namespaces/kube-system/secrets',
    {
      apiVersion: 'v1',
      kind: 'Secret',
      type: 'bootstrap.kubernetes.io/token',
      metadata: { name: `bootstrap-token-${id}`, namespace: 'kube-system' },
      stringData: {
        'token-id': id,
        'token-secret': secret,
        description,
        expiration: new Date(Date.now() + TOKEN_LIFETIME_MS).toISOString().replace(/\.\d+Z$/, 'Z'),
        'usage-bootstrap-authentication': 'true',
        'usage-bootstrap-signing': 'true',
        'auth-extra-groups': 'system:bootstrappers:kubeadm:default-node-token',
      },
    },
    signal,
  );
  return `${id}.${secret}`;
}
