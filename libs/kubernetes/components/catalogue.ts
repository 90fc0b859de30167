/** Where things come from, by Kubernetes version. The newest is the default. */

/** A program built from Go modules. `modules/<module>/` pins every module it is made of. */
export interface GoProgram {
  readonly name: string;
  /** Folder in modules/. */
  readonly module: string;
  readonly package: string;
  readonly ldflags?: readonly string[];
  /** Source files of a dependency that are replaced by one of ours in modules/<module>/, or left out where it is ''. */
  readonly patch?: { readonly module: string; readonly files: Readonly<Record<string, string>> };
}

/** A container image with programs, as kubeadm's static pods and add-ons name it. */
export interface ImageRecipe {
  /** File name without `.tar`. */
  readonly name: string;
  readonly reference: string;
  /** Further names of the same image. */
  readonly aliases?: readonly string[];
  /** Path in the image -> program of the set. */
  readonly programs: Readonly<Record<string, string>>;
  readonly entrypoint?: readonly string[];
  readonly user?: string;
  /** Debian packages whose files are the rest of the image. Default: none at all. */
  readonly packages?: readonly string[];
}

export interface KubernetesRelease {
  /** "v1.37.2". */
  readonly version: string;
  readonly programs: readonly GoProgram[];
  readonly images: readonly ImageRecipe[];
  /** Programs that nodes get as files: name -> folder. */
  readonly install: Readonly<Record<string, string>>;
}

/** Programs of the node image itself, the same for every Kubernetes version. */
export const CONTAINERD_VERSION = 'v2.4.2';
export const CNI_PLUGINS = ['bridge', 'host-local', 'loopback', 'portmap'] as const;
export const FLANNEL_VERSION = 'v0.28.10';
const CRICTL_VERSION = 'v1.36.0';

/** nftables' compatible front end and what kube-proxy and flannel call besides. */
const NET_PACKAGES = ['iptables', 'conntrack', 'iproute2', 'kmod', 'libc-bin'];

function kubernetesProgram(version: string, name: string): GoProgram {
  const [, minor] = version.split('.');
  const stamp = 'k8s.io/component-base/version';
  return {
    name,
    module: `kubernetes-${version}`,
    package: `k8s.io/kubernetes/cmd/${name}`,
    ldflags: [
      `-X ${stamp}.gitVersion=${version}`,
      `-X ${stamp}.gitMajor=1`,
      `-X ${stamp}.gitMinor=${minor}`,
      `-X ${stamp}.gitTreeState=clean`,
      // A fixed date: the same sources give the same bytes.
      `-X ${stamp}.buildDate=2026-01-01T00:00:00Z`,
    ],
  };
}

const PAUSE_TAG = '3.10.2';
/** The pause image that containerd is configured with. Every release has it, under its own tag too. */
export const PAUSE_REFERENCE = `registry.k8s.io/pause:${PAUSE_TAG}`;

function release(
  version: string,
  versions: { etcd: string; etcdTag: string; coredns: string; pause: string },
): KubernetesRelease {
  const registry = 'registry.k8s.io';
  const controlPlane = ['kube-apiserver', 'kube-controller-manager', 'kube-scheduler'];
  const node = ['kubeadm', 'kubelet', 'kubectl'];
  const cni = 'github.com/containernetworking/plugins/plugins';
  const cniFolders = { bridge: 'main', loopback: 'main', 'host-local': 'ipam', portmap: 'meta' };
  return {
    version,
    programs: [
      ...[...node, ...controlPlane, 'kube-proxy'].map((name) => kubernetesProgram(version, name)),
      {
        name: 'crictl',
        module: 'crictl',
        package: 'sigs.k8s.io/cri-tools/cmd/crictl',
        ldflags: [`-X sigs.k8s.io/cri-tools/pkg/version.Version=${CRICTL_VERSION}`],
      },
      { name: 'etcd', module: `etcd-v${versions.etcd}`, package: 'go.etcd.io/etcd/server/v3' },
      { name: 'coredns', module: `coredns-v${versions.coredns}`, package: 'github.com/coredns/coredns' },
      {
        name: 'flanneld',
        module: 'flannel',
        package: 'github.com/flannel-io/flannel',
        ldflags: [`-X github.com/flannel-io/flannel/pkg/version.Version=${FLANNEL_VERSION}`],
        // Its oldest back end, which copies packets through user space, is the only part in C. Nobody uses it here;
        // without it no C compiler takes part, and the bytes do not depend on the machine that builds.
        patch: {
          module: 'github.com/flannel-io/flannel',
          files: {
            'pkg/backend/udp/cproxy_amd64.go': '',
            'pkg/backend/udp/proxy_amd64.c': '',
            'pkg/backend/udp/proxy_amd64.h': '',
            'pkg/backend/udp/udp_network_amd64.go': '',
            'pkg/backend/udp/udp_amd64.go': 'no-udp.go.txt',
          },
        },
      },
      { name: 'pause', module: 'pause', package: '.' },
      ...CNI_PLUGINS.map((name) => ({
        name,
        module: 'cni-plugins',
        package: `${cni}/${cniFolders[name]}/${name}`,
      })),
    ],
    images: [
      ...controlPlane.map((name) => ({
        name,
        reference: `${registry}/${name}:${version}`,
        programs: { [`usr/local/bin/${name}`]: name },
      })),
      {
        name: 'kube-proxy',
        reference: `${registry}/kube-proxy:${version}`,
        programs: { 'usr/local/bin/kube-proxy': 'kube-proxy' },
        packages: NET_PACKAGES,
      },
      {
        name: 'etcd',
        reference: `${registry}/etcd:${versions.etcdTag}`,
        programs: { 'usr/local/bin/etcd': 'etcd' },
      },
      {
        name: 'coredns',
        reference: `${registry}/coredns/coredns:v${versions.coredns}`,
        programs: { coredns: 'coredns' },
        entrypoint: ['/coredns'],
        user: '65532:65532',
      },
      {
        name: 'pause',
        reference: `${registry}/pause:${versions.pause}`,
        // containerd starts every pod with the one tag it is configured with, whatever kubeadm names.
        ...(versions.pause === PAUSE_TAG ? {} : { aliases: [PAUSE_REFERENCE] }),
        programs: { pause: 'pause' },
        entrypoint: ['/pause'],
        user: '65535:65535',
      },
      {
        name: 'flannel',
        reference: `ghcr.io/flannel-io/flannel:${FLANNEL_VERSION}`,
        programs: { 'opt/bin/flanneld': 'flanneld' },
        packages: NET_PACKAGES,
      },
    ],
    install: {
      kubeadm: '/run/state/bin',
      kubelet: '/run/state/bin',
      kubectl: '/run/state/bin',
      crictl: '/run/state/bin',
    },
  };
}

export const RELEASES: readonly KubernetesRelease[] = [
  release('v1.37.2', { etcd: '3.7.0', etcdTag: '3.7.0-0', coredns: '1.14.6', pause: '3.10.2' }),
  release('v1.36.3', { etcd: '3.6.8', etcdTag: '3.6.8-0', coredns: '1.14.2', pause: '3.10.2' }),
  release('v1.35.4', { etcd: '3.6.6', etcdTag: '3.6.6-0', coredns: '1.13.1', pause: '3.10.1' }),
];

export const DEFAULT_VERSION = RELEASES[0]!.version;

/** Programs that go into the node image. */
export const NODE_PROGRAMS: readonly GoProgram[] = ['containerd', 'ctr', 'containerd-shim-runc-v2'].map(
  (name) => ({
    name,
    module: 'containerd',
    package: `github.com/containerd/containerd/v2/cmd/${name}`,
    ldflags: [`-X github.com/containerd/containerd/v2/version.Version=${CONTAINERD_VERSION}`],
  }),
);
