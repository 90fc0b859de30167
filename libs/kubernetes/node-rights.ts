const GROUP = 'rbac.authorization.k8s.io';

/**
 * What nodes and API servers may do beyond the built-in rules, as one List in JSON; applied at init.
 *
 * It stands for kubeadm's phase bootstrap-token, which gives more: whoever has a token may ask for the certificate of
 * any node, the control planes' too, and gets it. A node here has a certificate in its own name before it joins, and
 * is given further ones in that name only.
 */
export function nodeRights(): string {
  return JSON.stringify({
    apiVersion: 'v1',
    kind: 'List',
    items: [
      // The approver compares the name in the request with the requester's for this subresource, and for no other.
      binding(
        'asterism:node-renews-own-certificate',
        'system:certificates.k8s.io:certificatesigningrequests:selfnodeclient',
        { kind: 'Group', name: 'system:nodes' },
      ),
      // Logs, exec and metrics of pods.
      binding('asterism:apiserver-reaches-kubelets', 'system:kubelet-api-admin', {
        kind: 'User',
        name: 'kube-apiserver-kubelet-client',
      }),
    ],
  });
}

function binding(name: string, role: string, subject: { kind: 'Group' | 'User'; name: string }): object {
  return {
    apiVersion: `${GROUP}/v1`,
    kind: 'ClusterRoleBinding',
    metadata: { name },
    roleRef: { apiGroup: GROUP, kind: 'ClusterRole', name: role },
    subjects: [{ apiGroup: GROUP, ...subject }],
  };
}
