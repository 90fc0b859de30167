import { locked } from '@asterism/runtime/folder-lock';
import { clusterFolder, gatewayOf, LOCK_SECONDS, nodeOf, readCluster } from './cluster.ts';
import { ownComponents } from './components.ts';
import { BALANCED_PORTS, balance } from './load-balancer.ts';
import { serveMetadata } from './metadata-server.ts';
import { serveMirror } from './mirror.ts';
import { endedBy, killNode, startNode } from './node.ts';

// One process per cluster, in the network namespace of its fabric: metadata, load balancer, mirror, and the hand
// that boots a node again which asked for it. It holds no state: killed, it is started again, and nodes see a gap.
const uid = process.argv[2];
if (uid === undefined) throw new Error('usage: supervisor-main.ts UID');
const WATCH_PERIOD_MS = 1000;

let cluster = await readCluster(uid);
const served = new Set<string>();

async function serveNodes(): Promise<void> {
  for (const node of cluster.nodes) {
    if (served.has(node.name)) continue;
    await serveMetadata(() => cluster, node);
    served.add(node.name);
  }
}

const controlPlanes = () =>
  cluster.nodes.filter((node) => node.role === 'ControlPlane').map((node) => node.address);

await serveNodes();
for (const port of BALANCED_PORTS) await balance(gatewayOf(cluster), port, controlPlanes);
// What the mirror lacks is missed by nodes that join. What is above, every node needs all the time.
await serveMirror(gatewayOf(cluster), ownComponents(uid)).catch((cause) => say(`no mirror: ${cause}`));
process.stdout.write('serving\n');

while (true) {
  await new Promise((resolve) => setTimeout(resolve, WATCH_PERIOD_MS));
  cluster = await readCluster(uid);
  await serveNodes();
  for (const { name } of cluster.nodes) {
    if ((await endedBy(uid, name)) === undefined) continue;
    await locked(clusterFolder(uid), LOCK_SECONDS, () => afterEnd(name)).catch((cause) =>
      say(`${name}: ${cause}`),
    );
  }
}

function say(text: string): void {
  process.stdout.write(`${new Date().toISOString()} ${text}\n`);
}

/** A command may have taken the node up or down while the lock was waited for, so everything is looked at again. */
async function afterEnd(name: string): Promise<void> {
  const now = await readCluster(uid!);
  const node = nodeOf(now, name);
  const end = await endedBy(uid!, name);
  if (end === undefined) return;
  say(`${name} ended: ${end}`);
  await (end === 'reboot' ? startNode : killNode)(now, node);
}
