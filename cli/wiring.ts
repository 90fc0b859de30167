import { CLUSTER_ID_PCR, measurementsWithoutMembership } from '@asterism/attestation/cluster-id';
import { parseMeasurements, withPcr } from '@asterism/attestation/measurements';
import { VARIANTS } from '@asterism/attestation/variants';
import { QemuVtpmVerifier } from '@asterism/attestation/variants/qemu-vtpm/verifier';
import type { ClusterConfig } from '@asterism/config/cluster-config';
import type { Parts } from './parts.ts';
import { kubernetesComponents } from './wiring/components.ts';
import { machines, nodeImages } from './wiring/local.ts';

/** The real things behind the commands. */
export function parts(): Parts {
  return {
    machines,
    images: nodeImages,
    components: kubernetesComponents,
    verifier: (config, identity) => new QemuVtpmVerifier({ measurements: expected(config, identity) }),
    trustStatement: () => VARIANTS['qemu-vtpm'].trust,
  };
}

function expected(config: ClusterConfig, identity: Uint8Array | undefined) {
  const measurements = parseMeasurements(config.attestation.qemuVtpm.measurements);
  return identity === undefined
    ? measurementsWithoutMembership(measurements)
    : withPcr(measurements, CLUSTER_ID_PCR, identity);
}
