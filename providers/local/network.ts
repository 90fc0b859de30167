import { gatewayOf, hostAddressOf, type LocalCluster, type LocalNode, networkOf } from './cluster.ts';
import { ALL_NETWORKS, ensureEgress, LINK_LOCAL, removeEgress } from './egress.ts';
import { host, tryHost } from './host.ts';
import { noteNetworkFolder } from './network-folder.ts';

// Every node hangs on the fabric by a link of its own, and the fabric routes between them. With strict reverse-path
// filtering a packet counts only if it came from the link that its source address belongs to: a node cannot speak
// for another, and a source address is an identity.

/** The gateway as every node sees it on its own link: the fabric's end answers for this address. */
const LINK_GATEWAY = '169.254.77.1';

export const fabricName = (uid: string): string => `ast-${uid}`;
export const nodeNetworkName = (uid: string, node: string): string => `ast-${uid}-${node}`;
const hostLink = (uid: string): string => `ast${uid}`;
const linkOf = (node: LocalNode): string => `n${node.address.split('.')[3]}`;

const inNetwork = (name: string, script: string): Promise<string> =>
  host('nsenter', `--net=/run/netns/${name}`, 'sh', '-ec', script);

/**
 * Makes the fabric of a cluster, the host's way into it and, with egress, its way out, unless they are there: a reboot
 * of the host takes them away.
 * @throws AsterismError ERR_HOST the host cannot be made to forward packets
 */
export async function ensureFabric(cluster: LocalCluster): Promise<void> {
  const fabric = fabricName(cluster.uid);
  const link = hostLink(cluster.uid);
  // The route is what is made last.
  const routes = await host('ip', '-4', 'route', 'show', networkOf(cluster));
  if (!routes.includes(link) || !(await networkNames()).includes(fabric)) await makeFabric(cluster);
  // A firewall that is loaded anew takes the host's rules away while the fabric stays.
  if (cluster.egress) await ensureEgress(cluster, link);
}

async function makeFabric(cluster: LocalCluster): Promise<void> {
  const fabric = fabricName(cluster.uid);
  const link = hostLink(cluster.uid);
  await removeNetworks(cluster.uid);
  await noteNetworkFolder();
  await host('ip', 'netns', 'add', fabric);
  await host('ip', 'link', 'add', link, 'type', 'veth', 'peer', 'name', 'host', 'netns', fabric);
  // Reverse-path filtering is for version 4 only: version 6 stays off.
  await inNetwork(
    fabric,
    `if [ -e /proc/sys/net/ipv6 ]; then
       echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6
       echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6
     fi
     ip link set lo up
     ip addr add ${gatewayOf(cluster)}/32 dev lo
     ip link set host up
     ip route add ${hostAddressOf(cluster)}/32 dev host
     echo 1 > /proc/sys/net/ipv4/ip_forward
     echo 1 > /proc/sys/net/ipv4/conf/all/rp_filter
     echo 1 > /proc/sys/net/ipv4/conf/default/rp_filter
     echo 1 > /proc/sys/net/ipv4/conf/host/proxy_arp
     ${cluster.egress ? wayOut(cluster) : NO_WAY_OUT}`,
  );
  await host('ip', 'addr', 'add', `${hostAddressOf(cluster)}/32`, 'dev', link);
  await host('ip', 'link', 'set', link, 'up');
  await host('ip', 'route', 'add', networkOf(cluster), 'dev', link, 'src', hostAddressOf(cluster));
}

/** Nodes may answer the host, not call it. */
const NO_WAY_OUT = 'iptables -w 10 -A FORWARD -o host -m conntrack --ctstate NEW -j DROP';

// With egress, routes keep nodes from other clusters and from link-local addresses. Nobody but the host itself comes in
// by the way out: a host that forwards could bring its neighbours.
const wayOut = (cluster: LocalCluster): string => `
     ip route add unreachable ${ALL_NETWORKS}
     ip route add unreachable ${LINK_LOCAL}
     for chain in INPUT FORWARD; do
       iptables -w 10 -A $chain -i host ! -s ${hostAddressOf(cluster)} -m conntrack --ctstate NEW -j DROP
     done
     ip route add default via ${hostAddressOf(cluster)} dev host`;

async function networkNames(): Promise<string[]> {
  return (await host('ip', 'netns', 'list')).split('\n').map((line) => line.split(' ')[0]!);
}

/** Makes the network namespace of a node and its link to the fabric. */
export async function connectNode(cluster: LocalCluster, node: LocalNode): Promise<void> {
  const fabric = fabricName(cluster.uid);
  const own = nodeNetworkName(cluster.uid, node.name);
  const link = linkOf(node);
  await host('ip', 'netns', 'add', own);
  await host(
    'ip',
    'link',
    'add',
    'eth0',
    'netns',
    own,
    'type',
    'veth',
    'peer',
    'name',
    link,
    'netns',
    fabric,
  );
  await inNetwork(
    fabric,
    `ip addr add ${LINK_GATEWAY}/32 dev ${link}
     ip link set ${link} up
     ip route add ${node.address}/32 dev ${link}
     echo 1 > /proc/sys/net/ipv4/conf/${link}/rp_filter`,
  );
  await inNetwork(
    own,
    `ip link set lo up
     ip addr add ${node.address}/32 dev eth0
     ip link set eth0 up
     ip route add ${LINK_GATEWAY}/32 dev eth0
     ip route add default via ${LINK_GATEWAY} dev eth0 src ${node.address}
     echo 1 > /proc/sys/net/ipv4/ip_forward
     if [ -e /proc/sys/net/bridge/bridge-nf-call-iptables ]; then echo 1 > /proc/sys/net/bridge/bridge-nf-call-iptables; fi`,
  );
}

export async function disconnectNode(cluster: LocalCluster, node: LocalNode): Promise<void> {
  await tryHost('nsenter', `--net=/run/netns/${fabricName(cluster.uid)}`, 'ip', 'link', 'del', linkOf(node));
  await tryHost('ip', 'netns', 'del', nodeNetworkName(cluster.uid, node.name));
}

/** Removes every network namespace, link and rule of a cluster, also of one that was made by half. */
export async function removeNetworks(uid: string): Promise<void> {
  for (const name of await networkNames()) {
    if (name === fabricName(uid) || name.startsWith(`${fabricName(uid)}-`))
      await tryHost('ip', 'netns', 'del', name);
  }
  await tryHost('ip', 'link', 'del', hostLink(uid));
  await removeEgress(uid);
}
