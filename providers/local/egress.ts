import { readFile } from 'node:fs/promises';
import { isIPv4 } from 'node:net';
import { runProgram } from '@asterism/runtime/program';
import { type LocalCluster, networkOf } from './cluster.ts';
import { host, tryHost } from './host.ts';
import { raiseForwarding } from './host-limits.ts';

// What the host does for nodes that may open connections beyond it. Where they may not go, other clusters and
// link-local addresses, their own fabric refuses (network.ts): there no rule of the host can get in between.

/** Networks of all clusters. */
export const ALL_NETWORKS = '10.77.0.0/16';
/** Metadata services of clouds, which give the host's credentials to who asks, are link-local. */
export const LINK_LOCAL = '169.254.0.0/16';
/** glibc reads no more of them (resolv.conf(5), MAXNS). */
const MAX_NAMESERVERS = 3;

const CHAINS = [
  ['nat', 'POSTROUTING'],
  ['filter', 'FORWARD'],
] as const;
const tagOf = (uid: string): string => `asterism-${uid}`;

/**
 * Lets the host forward what nodes of a cluster send beyond it, and the answers. What is there already stays as it is.
 * @param link the host's end of its link to the cluster
 * @throws AsterismError ERR_HOST the host cannot be made to forward packets
 */
export async function ensureEgress(cluster: LocalCluster, link: string): Promise<void> {
  const network = networkOf(cluster);
  const tag = `-m comment --comment ${tagOf(cluster.uid)}`;
  const raised = await raiseForwarding();
  await ensureRule('nat', '-A', 'POSTROUTING', `-s ${network} ! -d ${ALL_NETWORKS} ${tag} -j MASQUERADE`);
  // First, because other rules and the policy may drop.
  const answers = '-m conntrack --ctstate ESTABLISHED,RELATED';
  await ensureRule('filter', '-I', 'FORWARD', `-d ${network} -o ${link} ${answers} ${tag} -j ACCEPT`);
  await ensureRule(
    'filter',
    '-I',
    'FORWARD',
    `-s ${network} ! -d ${ALL_NETWORKS} -i ${link} ${tag} -j ACCEPT`,
  );
  // Last: a host that forwarded nothing before does not become a router between the networks that it is in.
  if (raised) await ensureRule('filter', '-A', 'FORWARD', `${tag} -j DROP`);
}

async function ensureRule(table: string, place: '-A' | '-I', chain: string, rule: string): Promise<void> {
  const iptables = ['iptables', '-w', '10', '-t', table] as const;
  const words = rule.split(' ');
  if (await tryHost(...iptables, '-C', chain, ...words)) return;
  await host(...iptables, place, chain, ...words);
}

/** Removes every rule of a cluster from the host, also of one that was made by half. */
export async function removeEgress(uid: string): Promise<void> {
  for (const [table, chain] of CHAINS) {
    const iptables = ['-w', '10', '-t', table];
    // A host whose tables iptables cannot read has no rules of ours, and other clusters to remove.
    const { code, stdout } = await runProgram('iptables', [...iptables, '-S', chain], { timeoutMs: 60_000 });
    if (code !== 0) continue;
    for (const line of stdout.split('\n')) {
      const words = line.replaceAll('"', '').split(' ');
      if (words[0] !== '-A' || !words.includes(tagOf(uid))) continue;
      await host('iptables', ...iptables, '-D', ...words.slice(1));
    }
  }
}

/**
 * The host's name servers that nodes with egress can ask: none of its loopback (systemd-resolved, dnsmasq), which the
 * first file may name and the second then explains, and none that is link-local.
 */
export async function hostNameservers(
  files: readonly string[] = ['/etc/resolv.conf', '/run/systemd/resolve/resolv.conf'],
): Promise<string[]> {
  for (const file of files) {
    const found = nameserversIn(await readFile(file, 'utf8').catch(() => ''));
    if (found.length > 0) return found;
  }
  return [];
}

function nameserversIn(text: string): string[] {
  const addresses = [...text.matchAll(/^nameserver[ \t]+(\S+)/gm)].map(([, address]) => address!);
  // Nodes have IPv4 only.
  const usable = addresses.filter((one) => isIPv4(one) && !/^(0|127|169\.254|10\.77)\./.test(one));
  return usable.slice(0, MAX_NAMESERVERS);
}
