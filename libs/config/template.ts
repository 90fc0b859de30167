import { stringify } from 'yaml';
import type { ClusterConfig } from './cluster-config.ts';
import { flatKms } from './kms-config.ts';

/** Text of a commented configuration file. It parses to exactly `config`. */
export function renderClusterConfig(config: ClusterConfig): string {
  const local = config.provider.local;
  const vtpm = config.attestation.qemuVtpm;
  const measurements = Object.entries(vtpm.measurements)
    .sort(([a], [b]) => Number(a) - Number(b))
    .map(
      ([index, { expected, warnOnly }]) =>
        `      ${index}:\n        expected: "${expected}"\n        warnOnly: ${warnOnly}\n`,
    )
    .join('');
  return `# Configuration of an Asterism cluster. Unknown keys are errors.

# Version of this file's schema.
version: ${config.version}

# Name of the cluster: at most 37 lower-case letters, digits and '-'. Nodes are named after it.
name: ${config.name}

# Kubernetes version, one of \`asterism components list\`.
kubernetesVersion: ${config.kubernetesVersion}

# Node image, named by the SHA-256 of its root file system. \`asterism image build\` makes it and prints this value.
image: ${JSON.stringify(config.image)}

provider:
  # Each node is a system container on this machine with its own TPM, network and state disk.
  local:
    # 1, or 3 where one control-plane node may fail.
    controlPlaneNodes: ${local.controlPlaneNodes}
    workerNodes: ${local.workerNodes}
    # Size of each node's encrypted state disk.
    stateDiskMiB: ${local.stateDiskMiB}
    # Whether nodes and pods may open connections to this machine and beyond it; chosen when the cluster is made. A KMS
    # outside the cluster needs it.
    egress: ${local.egress}

attestation:
  qemuVtpm:
    # The TPM of a local node is a program on this machine: it shows the protocol, but whoever controls the machine
    # can forge its quotes. \`false\` refuses such evidence, and with it every local cluster.
    acceptUnauthenticatedTpm: ${vtpm.acceptUnauthenticatedTpm}
    # Expected PCRs, computed from the image's files (\`asterism image measurements\`). A node whose PCR differs is
    # refused; with \`warnOnly: true\` it is accepted with a warning. PCR 15 is the cluster's identity: zero before
    # initialisation, and set by Asterism itself afterwards.
    measurements:
${measurements}
kms:
  # Where the key encryption key lives. cluster: keys are derived from the master secret, inside the cluster. Or your
  # own: aws, gcp, azure, kmip, vault, pkcs11; docs/keys/ has a page for each.
${indent(stringify(flatKms(config.kms), { lineWidth: 0 }))}`;
}

function indent(text: string): string {
  return text.replaceAll(/^(?=.)/gm, '  ');
}
