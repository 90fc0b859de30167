import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { ComponentManifest } from '@asterism/kubernetes/components/provide';
import { gatewayOf, readCluster } from './cluster.ts';
import { BALANCED_PORTS, balance } from './load-balancer.ts';
import { serveMetadata } from './metadata-server.ts';
import { serveMirror } from './mirror.ts';

// One process per cluster, in the network namespace of its fabric: metadata, load balancer and mirror. It holds no
// state: killed and started again, nodes see a gap and nothing else.
const uid = process.argv[2];
if (uid === undefined) throw new Error('usage: supervisor-main.ts UID');
const cluster = await readCluster(uid);
const controlPlanes = cluster.nodes
  .filter((node) => node.role === 'ControlPlane')
  .map((node) => node.address);

for (const node of cluster.nodes) await serveMetadata(cluster, node);
for (const port of BALANCED_PORTS) await balance(gatewayOf(cluster), port, controlPlanes);
const manifest = JSON.parse(
  await readFile(join(cluster.componentsFolder, 'components.json'), 'utf8'),
) as ComponentManifest;
await serveMirror(gatewayOf(cluster), cluster.componentsFolder, manifest);

process.on('SIGTERM', () => process.exit(0));
process.on('SIGINT', () => process.exit(0));
process.stdout.write('serving\n');
