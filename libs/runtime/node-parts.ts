import { createIssuer } from '@asterism/attestation/issuer';
import type { Issuer, Verifier } from '@asterism/attestation/types';
import { createVerifier } from '@asterism/attestation/verifier';
import { STATE_MAPPING } from '@asterism/disk/layout';
import { StateDisk } from '@asterism/disk/state-disk';
import { AsterismError } from '@asterism/errors/errors';
import { httpMetadata } from '@asterism/metadata/http-metadata';
import { JoinPeers } from '@asterism/rpc/join-peers';
import { AddressedTpm } from '@asterism/tpm/machine';
import { z } from 'zod';

const environment = z.object({
  ASTERISM_ATTESTATION_VARIANT: z.literal('qemu-vtpm'),
  ASTERISM_TPM: z.string().regex(/^(swtpm|device):\/.+/),
  ASTERISM_METADATA: z.string().regex(/^(unix:\/|http:\/\/).+/),
  ASTERISM_EVENT_LOG: z.string().optional(),
  ASTERISM_STATE_DISK: z.string().startsWith('/'),
  ASTERISM_PROVIDER: z.string().min(1),
  ASTERISM_STATE_MAPPED: z.enum(['true', 'false']),
  ASTERISM_STATE_MAPPING: z
    .string()
    .regex(/^[a-z][a-z0-9-]{0,63}$/)
    .default(STATE_MAPPING),
});

/** The parts that bootstrapper and disk-mapper are made of, from the node's environment (/run/asterism/node.env). */
export function nodeParts(env: NodeJS.ProcessEnv) {
  const parsed = environment.safeParse(env);
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    throw new AsterismError('ERR_NODE_ENV', `node.env: ${issue?.path.join('.')}: ${issue?.message}`);
  }
  const values = parsed.data;
  const variant = values.ASTERISM_ATTESTATION_VARIANT;
  const tpm = new AddressedTpm(values.ASTERISM_TPM, 'ecc-p256');
  const issuer: Issuer = createIssuer({
    variant,
    tpmAddress: values.ASTERISM_TPM,
    eventLogPath: values.ASTERISM_EVENT_LOG,
  });
  const verifiersFor = (expected: ReadonlyMap<number, Uint8Array>): Verifier[] => {
    const measurements = new Map(
      [...expected].map(([index, value]) => [index, { expected: value, warnOnly: false }]),
    );
    return [createVerifier({ variant, measurements })];
  };
  const metadata = httpMetadata(values.ASTERISM_METADATA);
  const mappable = values.ASTERISM_STATE_MAPPED === 'true';
  const disk = new StateDisk({ device: values.ASTERISM_STATE_DISK, mappable });
  const peers = new JoinPeers({ metadata, tpm, issuer, verifiersFor });
  return { variant, tpm, issuer, metadata, disk, mapping: values.ASTERISM_STATE_MAPPING, peers };
}
