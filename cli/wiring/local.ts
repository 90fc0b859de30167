import { createReadStream } from 'node:fs';
import { pipeline } from 'node:stream/promises';
import { renderMeasurements } from '@asterism/attestation/measurements';
import { AsterismError } from '@asterism/errors/errors';
import { type BuiltImage, buildNodeImage, latestImage } from '@asterism/image/build';
import {
  CLUSTERS,
  findCluster,
  gatewayOf,
  listUids,
  noteWorkspace,
  workspaceOf,
} from '@asterism/provider-local/cluster';
import { execInNode } from '@asterism/provider-local/exec';
import {
  createLocalCluster,
  nodeLogPath,
  removeLocalCluster,
  startLocalNode,
  statusOfLocalCluster,
  stopLocalNode,
} from '@asterism/provider-local/provider';
import type { FoundCluster, Machines } from '../machines.ts';
import type { NodeImage, NodeImages } from '../parts.ts';

/** System containers of this machine. */
export const machines: Machines = {
  folder: CLUSTERS,
  checkPermission() {
    if (process.getuid?.() === 0) return;
    throw new AsterismError('ERR_PERMISSION', 'local nodes belong to root; run it as root (sudo)');
  },
  async list() {
    return Promise.all((await listUids()).map(find));
  },
  async create(spec, options) {
    const cluster = await createLocalCluster(spec, options);
    await noteWorkspace(cluster.uid, spec.workspace);
    return { endpoint: gatewayOf(cluster), nodes: [...cluster.nodes] };
  },
  destroy: ({ uid }, options) => removeLocalCluster(uid, options),
  status: ({ uid }) => statusOfLocalCluster(uid),
  start: ({ uid }, node) => startLocalNode(uid, node),
  stop: ({ uid }, node) => stopLocalNode(uid, node),
  exec: ({ uid }, node, argv, signal) => execInNode(uid, node, argv, { signal }),
  async logs({ uid }, node, follow, signal) {
    const found = (await statusOfLocalCluster(uid)).find((one) => one.name === node);
    if (found?.running) {
      const argv = ['journalctl', '--no-pager', '--lines=1000', ...(follow ? ['--follow'] : [])];
      await execInNode(uid, node, argv, { signal });
    } else {
      // A node that is down cannot be asked; what it wrote to its console is still there.
      await pipeline(createReadStream(nodeLogPath(uid, node)), process.stdout, { end: false, signal });
    }
  },
};

async function find(uid: string): Promise<FoundCluster> {
  const workspace = await workspaceOf(uid);
  try {
    const record = await findCluster(uid);
    const nodes = record === undefined ? [] : await statusOfLocalCluster(uid);
    const running = nodes.filter((node) => node.running).length;
    return { uid, name: record?.name, nodes: { running, total: nodes.length }, workspace };
  } catch (error) {
    // What is damaged is what one wants to find.
    if (!(error instanceof AsterismError)) throw error;
    return { uid, name: undefined, nodes: { running: 0, total: 0 }, workspace };
  }
}

/** The node image of this clone. */
export const nodeImages: NodeImages = {
  async built() {
    const image = await latestImage();
    return image === undefined ? undefined : describe(image);
  },
  build: async (options) => describe(await buildNodeImage(options)),
};

function describe({ reference, folder, measurements }: BuiltImage): NodeImage {
  return { reference, path: folder, measurements: renderMeasurements(measurements) };
}
