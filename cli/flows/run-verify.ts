import { clusterIdPcr } from '@asterism/attestation/cluster-id';
import { fromHex } from '@asterism/bytes/encoding';
import { AsterismError } from '@asterism/errors/errors';
import type { Context } from '../context.ts';
import type { Parts } from '../parts.ts';
import { type NodeVerdict, VERIFY_PORT, type VerifyTarget, verifyNodes } from './verify-node.ts';

export interface VerifyOptions {
  readonly nodeEndpoint?: { host: string; port: number };
  readonly clusterId?: string;
}

/** Verifies the nodes of a workspace, or the one that is named. */
export async function runVerify(
  { workspace, signal }: Context,
  parts: Parts,
  options: VerifyOptions,
): Promise<NodeVerdict[]> {
  const config = await workspace.config();
  const state = await workspace.state();
  const clusterId = options.clusterId ?? state?.clusterId;
  if (clusterId === undefined) {
    throw new AsterismError(
      'ERR_NO_CLUSTER_ID',
      'which cluster is expected is not known: the state file has no cluster id; give one with --cluster-id',
    );
  }
  const verifier = parts.verifier(config, await clusterIdPcr(fromHex(clusterId)));
  return await verifyNodes(targetsOf(options, state?.nodes ?? []), verifier, signal);
}

function targetsOf(
  { nodeEndpoint }: VerifyOptions,
  nodes: readonly { name: string; address: string }[],
): VerifyTarget[] {
  if (nodeEndpoint !== undefined) return [{ name: nodeEndpoint.host, ...nodeEndpoint }];
  if (nodes.length === 0) {
    throw new AsterismError('ERR_NO_NODES', 'the state file has no nodes; name one with --node-endpoint');
  }
  return nodes.map(({ name, address }) => ({ name, host: address, port: VERIFY_PORT }));
}
