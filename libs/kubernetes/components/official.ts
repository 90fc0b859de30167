/**
 * Hex SHA-256 of the programs that the Kubernetes project itself builds and publishes (linux/amd64), as others pinned
 * them from its release page. A version without an entry cannot be downloaded, only built: nothing is taken on trust.
 */
export const OFFICIAL_SHA256: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  'v1.36.3': {
    kubeadm: 'bba1733c701bf70ec74ba1cc3fd5745404c1134a8a4b0a5f8560cc9832023421',
    kubelet: '46707a53209f826ad0f0d62371ac69cd00e78fd9a8176cf5f6f87f18f7f8b718',
    kubectl: 'ebbd080e7c2e275093b55915722043257eb24004363e20acb3c4d71919f88336',
    'kube-apiserver': '1f217d397234a6d065da663c6e086fdb02c0f0de97a0758ff3e6f3956f4ef8ab',
    'kube-controller-manager': '7edfe976d5a06c7a702d653e914095f4a732a04bb2139115b6a6eba6a9b781c7',
    'kube-scheduler': 'b8955d4518c902110b50a825364339b1fb673822518ce0ba081a69ed634f8eee',
    'kube-proxy': 'f1b5eb4462df9d98751264c6256628d90fdc72ba8e9a8025d1f75674f078f254',
  },
};

/** Where the Kubernetes project publishes a program. */
export function officialUrl(version: string, program: string): string {
  return `https://dl.k8s.io/release/${version}/bin/linux/amd64/${program}`;
}
