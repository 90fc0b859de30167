import { stringify } from 'yaml';
import { CONTAINERD_SOCKET } from './containerd.ts';

export const KUBERNETES_FOLDER = '/etc/kubernetes';
export const ADMIN_KUBECONFIG = `${KUBERNETES_FOLDER}/admin.conf`;
export const KUBEADM_CONFIG = `${KUBERNETES_FOLDER}/kubeadm.yaml`;
export const AUDIT_POLICY = `${KUBERNETES_FOLDER}/audit-policy.yaml`;
export const POD_SUBNET = '10.244.0.0/16';
export const SERVICE_SUBNET = '10.96.0.0/12';
export const API_PORT = 6443;
/** The kubelet's serving certificate: signed by the cluster's CA, so that the API server can check whom it asks. */
export const KUBELET_CERT = '/run/state/kubelet/pki/kubelet.crt';
export const KUBELET_KEY = '/run/state/kubelet/pki/kubelet.key';
/** Where a joining node finds the cluster, and as whom it speaks to it. Holds no secret: it names files. */
export const DISCOVERY_KUBECONFIG = `${KUBERNETES_FOLDER}/discovery.conf`;
/** kubeadm's copy of it for the kubelet, keys included. Useless once the kubelet has a certificate of its own. */
export const BOOTSTRAP_KUBECONFIG = `${KUBERNETES_FOLDER}/bootstrap-kubelet.conf`;
/** Written by the kubelet when it first starts. */
export const KUBELET_KUBECONFIG = `${KUBERNETES_FOLDER}/kubelet.conf`;
/** The client certificate that the kubelet got by itself, and its key. */
export const KUBELET_CREDENTIAL = '/var/lib/kubelet/pki/kubelet-client-current.pem';

/**
 * kubeadm's preflight checks that do not hold on a node and need not:
 * - SystemVerification wants the kernel's configuration and module tree, which a container host may hide.
 * - Swap belongs to the host of a local node; the kubelet is told to tolerate it.
 * - FileContent--proc-sys-net-bridge-bridge-nf-call-iptables appears only with the first bridge in some kernels.
 * - NumCPU and Mem judge machines; whoever makes a small local cluster chose so.
 */
export const IGNORED_PREFLIGHT = [
  'SystemVerification',
  'Swap',
  'FileContent--proc-sys-net-bridge-bridge-nf-call-iptables',
  'NumCPU',
  'Mem',
] as const;

/** What differs between clusters and nodes in kubeadm's configuration. */
export interface NodeOfKubeadm {
  readonly nodeName: string;
  readonly nodeIp: string;
  readonly providerId: string;
}

export interface InitOfKubeadm extends NodeOfKubeadm {
  readonly clusterName: string;
  /** "v1.37.2". */
  readonly kubernetesVersion: string;
  /** host:port behind which the API servers stand. */
  readonly controlPlaneEndpoint: string;
  readonly certSans: readonly string[];
}

export interface JoinOfKubeadm extends NodeOfKubeadm {
  readonly controlPlane: boolean;
}

const API_VERSION = 'kubeadm.k8s.io/v1beta4';

function nodeRegistration(node: NodeOfKubeadm): object {
  return {
    name: node.nodeName,
    criSocket: `unix://${CONTAINERD_SOCKET}`,
    // Images are imported from the node's own measured file system and from checked components.
    imagePullPolicy: 'IfNotPresent',
    ignorePreflightErrors: [...IGNORED_PREFLIGHT],
    kubeletExtraArgs: [
      { name: 'node-ip', value: node.nodeIp },
      ...(node.providerId === '' ? [] : [{ name: 'provider-id', value: node.providerId }]),
    ],
  };
}

/** kubeadm's configuration (v1beta4) for the first control plane. */
export function initConfiguration(init: InitOfKubeadm): string {
  const sans = new Set(['127.0.0.1', init.nodeIp, ...init.certSans]);
  return documents(
    {
      apiVersion: API_VERSION,
      kind: 'InitConfiguration',
      localAPIEndpoint: { advertiseAddress: init.nodeIp, bindPort: API_PORT },
      nodeRegistration: nodeRegistration(init),
    },
    {
      apiVersion: API_VERSION,
      kind: 'ClusterConfiguration',
      clusterName: init.clusterName,
      kubernetesVersion: init.kubernetesVersion,
      controlPlaneEndpoint: init.controlPlaneEndpoint,
      networking: { podSubnet: POD_SUBNET, serviceSubnet: SERVICE_SUBNET, dnsDomain: 'cluster.local' },
      apiServer: {
        certSANs: [...sans],
        extraArgs: args({
          'audit-policy-file': AUDIT_POLICY,
          'audit-log-path': '/var/log/kubernetes/audit/audit.log',
          'audit-log-maxage': '30',
          'audit-log-maxbackup': '10',
          'audit-log-maxsize': '100',
          profiling: 'false',
          // Nodes join with a certificate in their own name; a token would let its holder become any node.
          'enable-bootstrap-token-auth': 'false',
          'kubelet-certificate-authority': `${KUBERNETES_FOLDER}/pki/ca.crt`,
        }),
        extraVolumes: [
          {
            name: 'audit',
            hostPath: '/var/log/kubernetes/audit',
            mountPath: '/var/log/kubernetes/audit',
            pathType: 'DirectoryOrCreate',
          },
          {
            name: 'audit-policy',
            hostPath: AUDIT_POLICY,
            mountPath: AUDIT_POLICY,
            readOnly: true,
            pathType: 'File',
          },
        ],
      },
      controllerManager: { extraArgs: args({ profiling: 'false', 'terminated-pod-gc-threshold': '1000' }) },
      scheduler: { extraArgs: args({ profiling: 'false' }) },
    },
    {
      apiVersion: 'kubelet.config.k8s.io/v1beta1',
      kind: 'KubeletConfiguration',
      cgroupDriver: 'cgroupfs',
      // Hosts of local nodes may still have cgroup v1.
      failCgroupV1: false,
      failSwapOn: false,
      // Absolute, because the file system of a local node is the host's: a share of a large and well-filled disk would
      // evict everything. Images were imported from checked files and cannot be pulled again, so they are kept.
      evictionHard: {
        'memory.available': '100Mi',
        'nodefs.available': '1Gi',
        'nodefs.inodesFree': '1%',
        'imagefs.available': '1Gi',
        'imagefs.inodesFree': '1%',
      },
      imageGCHighThresholdPercent: 100,
      rotateCertificates: true,
      tlsCertFile: KUBELET_CERT,
      tlsPrivateKeyFile: KUBELET_KEY,
    },
    {
      apiVersion: 'kubeproxy.config.k8s.io/v1alpha1',
      kind: 'KubeProxyConfiguration',
      mode: 'iptables',
      clusterCIDR: POD_SUBNET,
      // 0 = leave the kernel's table size alone: it belongs to the host of a local node.
      conntrack: { maxPerCore: 0, min: 0 },
    },
  );
}

/** kubeadm's configuration (v1beta4) for every further node. */
export function joinConfiguration(join: JoinOfKubeadm): string {
  return documents({
    apiVersion: API_VERSION,
    kind: 'JoinConfiguration',
    discovery: { file: { kubeConfigPath: DISCOVERY_KUBECONFIG } },
    nodeRegistration: nodeRegistration(join),
    ...(join.controlPlane
      ? { controlPlane: { localAPIEndpoint: { advertiseAddress: join.nodeIp, bindPort: API_PORT } } }
      : {}),
  });
}

/**
 * The kubeconfig with which a node joins: as the node that its certificate names, and as no other.
 * @param server host:port
 * @param caCert PEM
 */
export function discoveryKubeconfig(server: string, caCert: string): string {
  return documents({
    apiVersion: 'v1',
    kind: 'Config',
    clusters: [
      {
        name: 'cluster',
        cluster: {
          server: `https://${server}`,
          'certificate-authority-data': Buffer.from(caCert).toString('base64'),
        },
      },
    ],
    users: [{ name: 'node', user: { 'client-certificate': KUBELET_CERT, 'client-key': KUBELET_KEY } }],
    contexts: [{ name: 'join', context: { cluster: 'cluster', user: 'node' } }],
    'current-context': 'join',
  });
}

/** Every request is written down, without its body. */
export function auditPolicy(): string {
  return documents({ apiVersion: 'audit.k8s.io/v1', kind: 'Policy', rules: [{ level: 'Metadata' }] });
}

function args(values: Readonly<Record<string, string>>): { name: string; value: string }[] {
  return Object.entries(values).map(([name, value]) => ({ name, value }));
}

function documents(...values: readonly object[]): string {
  return values.map((value) => stringify(value)).join('---\n');
}

/**
 * A node's name in Kubernetes: lower case, "_" becomes "-".
 * @throws RangeError the instance name cannot be made an RFC 1123 subdomain
 */
export function nodeNameOf(instanceName: string): string {
  const name = instanceName.toLowerCase().replaceAll('_', '-');
  if (name.length > 253 || !/^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/.test(name)) {
    throw new RangeError(`instance name "${instanceName.slice(0, 100)}" cannot be a Kubernetes node name`);
  }
  return name;
}
