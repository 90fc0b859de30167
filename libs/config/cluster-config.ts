import { ParseError } from '@asterism/errors/errors';
import { z } from 'zod';
import { kmsSchema } from './kms-config.ts';
import { parseYaml } from './strict.ts';

/** Name of the configuration in a workspace. */
export const CONFIG_FILE = 'asterism-conf.yaml';

export const clusterName = z
  .string()
  .max(37, 'at most 37 characters, because host names are made of it')
  .regex(
    /^[a-z]([a-z0-9-]*[a-z0-9])?$/,
    "lower-case letters, digits and '-' only; starts with a letter, ends with a letter or digit",
  );

const hex32 = z
  .string()
  .regex(
    /^[0-9a-fA-F]{64}$/,
    'must be 64 hexadecimal digits (32 bytes); take it from `asterism image measurements`',
  )
  .transform((value) => value.toLowerCase());

/** Expected PCRs: index -> value, and whether a difference only warns. */
export const measurementsSchema = z
  .record(
    z.string().regex(/^(?:[0-9]|1[0-9]|2[0-3])$/, 'a PCR index is a number from 0 to 23'),
    z.strictObject({ expected: hex32, warnOnly: z.boolean() }),
    'must be a list of PCRs; take it from `asterism image measurements`',
  )
  .refine(
    (measurements) => Object.values(measurements).some((entry) => !entry.warnOnly),
    'at least one PCR must be enforced (warnOnly: false): otherwise every node passes',
  );

const schema = z.strictObject({
  version: z.literal('v1', "must be 'v1': this release reads no other schema version"),
  name: clusterName,
  kubernetesVersion: z
    .string()
    .regex(/^v1\.\d{1,3}\.\d{1,3}$/, "a full version such as 'v1.37.2'; see `asterism components list`"),
  image: z
    .string()
    .min(
      1,
      'no image is chosen yet; run `asterism image build`, then `asterism image measurements --write-config`',
    )
    .max(512),
  provider: z.strictObject({
    local: z.strictObject({
      controlPlaneNodes: z.int().min(1).max(9),
      workerNodes: z.int().min(0).max(50),
      stateDiskMiB: z.int().min(64).max(1_048_576).default(4096),
      egress: z.boolean().default(false),
    }),
  }),
  attestation: z.strictObject({
    qemuVtpm: z.strictObject({
      acceptUnauthenticatedTpm: z.boolean(),
      measurements: measurementsSchema,
    }),
  }),
  kms: kmsSchema,
});

/** What the user decided about a cluster. */
export type ClusterConfig = z.infer<typeof schema>;

/**
 * Reads and validates a configuration.
 *
 * @param name what the input is called in messages
 * @throws ParseError (ERR_CONFIG) with one line per problem; ERR_CONFIG_UNAUTHENTICATED_TPM, ERR_CONFIG_EGRESS
 */
export function parseClusterConfig(yaml: string, name: string = CONFIG_FILE): ClusterConfig {
  const config = parseYaml(yaml, schema, name);
  if (!config.attestation.qemuVtpm.acceptUnauthenticatedTpm) {
    throw new ParseError(
      `${name}: attestation.qemuVtpm.acceptUnauthenticatedTpm is false, but the provider 'local' has no other TPM. ` +
        'Its TPM is a program of this host: whoever controls the host can forge its quotes. ' +
        'Set it to true to say that you know, or use another provider.',
      { code: 'ERR_CONFIG_UNAUTHENTICATED_TPM' },
    );
  }
  if (config.kms.type !== 'cluster' && !config.provider.local.egress) {
    throw new ParseError(
      `${name}: kms.type is ${config.kms.type}, but nodes of the provider local reach no KMS; set provider.local.egress: true`,
      { code: 'ERR_CONFIG_EGRESS' },
    );
  }
  return config;
}
