import { ParseError } from '@asterism/errors/errors';
import { z } from 'zod';
import { clusterName } from './cluster-config.ts';
import { credentialSource } from './kms-config.ts';
import { parseJson } from './strict.ts';

/** Name of the state file in a workspace. */
export const STATE_FILE = 'asterism-state.json';

/** Present schema of the state file. Raise it with each change that older releases cannot read. */
export const STATE_SCHEMA = 1;

const base64 = z.base64();
const sources = z.record(z.string(), credentialSource);
const keyHome = z.strictObject({
  /** Without credentials. */
  kmsUri: z.string(),
  storageUri: z.string(),
  /** Where credentials are read. */
  sources: z.strictObject({ kms: sources, storage: sources }),
});
const schema = z.strictObject({
  schema: z.literal(STATE_SCHEMA),
  name: clusterName,
  /** Tells clusters of one name apart: 8 lower-case hexadecimal digits. */
  uid: z.string().regex(/^[0-9a-f]{8}$/),
  provider: z.literal('local'),
  /**
   * creating: machines are being made (or that failed); created: they run; initializing: an init has been tried;
   * initialized: the cluster works; terminating: machines are being removed.
   */
  phase: z.enum(['creating', 'created', 'initializing', 'initialized', 'terminating']),
  kubernetesVersion: z.string(),
  image: z.string(),
  /** Address behind which the control planes stand; empty while there is none. */
  endpoint: z.string(),
  nodes: z.array(
    z.strictObject({ name: z.string(), role: z.enum(['ControlPlane', 'Worker']), address: z.string() }),
  ),
  /** Proves to the first node that this workspace made it: base64 of its UTF-8 bytes. */
  initSecret: base64,
  /** 32 bytes that the CLI chose before its first init call, base64. With it the cluster id is known beforehand. */
  measurementSalt: base64.optional(),
  /** 64 hexadecimal digits; known as soon as measurementSalt and the master secret are. */
  clusterId: z
    .string()
    .regex(/^[0-9a-f]{64}$/)
    .optional(),
  /** 32 bytes that the CLI chose for a cluster whose keys an external KMS keeps, base64; gone when its init is confirmed. */
  measurementSecret: base64.optional(),
  /** The external KMS and store of the cluster; missing where keys are derived. */
  keyHome: keyHome.optional(),
  /** The one that a rotation under way leads to. */
  nextKeyHome: keyHome.optional(),
  /** Initialized, but the first node may not know yet that this workspace has the kubeconfig. */
  initUnconfirmed: z.literal(true).optional(),
});

/** What Asterism knows of the cluster that a workspace made. */
export type ClusterState = z.infer<typeof schema>;
/** An external KMS and store, as the state file names them. */
export type StoredKeyHome = NonNullable<ClusterState['keyHome']>;
export type Phase = ClusterState['phase'];

/** Turns a state of schema n into one of schema n + 1. Entry n of {@link MIGRATIONS} handles schema n. */
export type Migration = (old: Record<string, unknown>) => Record<string, unknown>;

/** There is one schema so far. The next one brings its migration here, with a test on a file of the old schema. */
const MIGRATIONS: ReadonlyMap<number, Migration> = new Map();

/**
 * Reads a state file, migrating older schemas.
 * @throws ParseError (ERR_CONFIG, ERR_STATE_NEWER)
 */
export function parseState(
  json: string,
  name: string = STATE_FILE,
  migrations: ReadonlyMap<number, Migration> = MIGRATIONS,
): ClusterState {
  let value = parseJson(json, z.looseObject({ schema: z.int() }), name) as Record<string, unknown>;
  for (let version = value.schema as number; version !== STATE_SCHEMA; version++) {
    if (version > STATE_SCHEMA) {
      throw new ParseError(
        `${name}: its schema ${version} is newer than this release knows (${STATE_SCHEMA}); use a newer asterism`,
        { code: 'ERR_STATE_NEWER' },
      );
    }
    const migrate = migrations.get(version);
    if (migrate === undefined) {
      throw new ParseError(`${name}: schema ${version} was never released; restore the file from a copy`, {
        code: 'ERR_CONFIG',
      });
    }
    value = { ...migrate(value), schema: version + 1 };
  }
  return parseJson(JSON.stringify(value), schema, name);
}

/** JSON text of a state, as written to the workspace. */
export function renderState(state: ClusterState): string {
  return `${JSON.stringify(schema.parse(state), null, 2)}\n`;
}
