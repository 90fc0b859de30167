import { PolicyError } from '@asterism/errors/errors';
import { nodeNameOf } from '@asterism/kubernetes/kubeadm';
import type { InstanceMetadata, Metadata } from '@asterism/metadata/types';

/** The machine at the other end of a connection, as the provider knows it. */
export interface PeerMachine {
  readonly instanceName: string;
  readonly nodeName: string;
  readonly address: string;
  readonly controlPlane: boolean;
}

/**
 * Which machine has the source address of a connection. Names and roles come from the provider, not from the caller.
 * @throws PolicyError ERR_UNKNOWN_PEER
 */
export async function machineAt(
  metadata: Metadata,
  address: string,
  signal: AbortSignal,
): Promise<PeerMachine> {
  const found: InstanceMetadata[] = (await metadata.list(signal)).filter(
    (instance) => instance.vpcIp === address,
  );
  const [instance] = found;
  if (found.length !== 1 || instance === undefined || instance.role === 'Unknown') {
    throw new PolicyError('ERR_UNKNOWN_PEER', `the provider knows no single machine with address ${address}`);
  }
  return machineOf(instance, address);
}

export function machineOf({ name, role }: InstanceMetadata, address: string): PeerMachine {
  return {
    instanceName: name,
    nodeName: nodeNameOf(name),
    address,
    controlPlane: role === 'ControlPlane',
  };
}
