import { KMS_HOMES, type KmsName, STORE_HOMES, type StoreName } from '@asterism/kms/catalogue';
import type { Home, Value } from '@asterism/kms/settings';
import { z } from 'zod';

/** Where a credential is read when it is needed; it is never in the configuration itself. */
export type CredentialSource = { readonly file: string } | { readonly env: string };

/** A store of wrapped DEKs, as configured. */
export interface StoreConfig {
  readonly type: StoreName;
  readonly parameters: Readonly<Record<string, string>>;
  readonly credentials: Readonly<Record<string, CredentialSource>>;
}

/** A KMS beside the cluster's own, as configured. */
export interface ExternalKmsConfig {
  readonly type: KmsName;
  readonly parameters: Readonly<Record<string, string>>;
  /** Empty: what the nodes themselves have (workload identity, instance metadata). */
  readonly credentials: Readonly<Record<string, CredentialSource>>;
  /** Read blobs that Constellation v2.6 wrote. */
  readonly v26Blobs: boolean;
  readonly store: StoreConfig;
}

export type KmsConfig = { readonly type: 'cluster' } | ExternalKmsConfig;

/** In a file: where a credential is read. */
export const credentialSource: z.ZodType<CredentialSource> = z.union(
  [
    z.strictObject({ file: z.string().min(1).max(4096) }),
    z.strictObject({ env: z.string().regex(/^[A-Za-z_][A-Za-z0-9_]{0,127}$/) }),
  ],
  'must be {file: PATH} or {env: NAME}: a credential is read from there when it is needed, and never written here',
);

function value({ about, pattern, required }: Value) {
  // YAML takes a port for a number.
  const text = z.preprocess(
    (given) => (Number.isInteger(given) ? String(given) : given),
    z.string(`must be text: ${about}`).regex(pattern, `must be: ${about}`),
  );
  return required === true ? text : text.optional();
}

/** The flat object that stands for a home in the file: its parameters, and where its credentials come from. */
function flat(type: string, home: Home, more: z.ZodRawShape) {
  const parameters = Object.entries(home.parameters).map(([name, given]) => [name, value(given)]);
  const credentials = Object.entries(home.credentials).map(([name, given]) => [
    name,
    given.required === true ? credentialSource : credentialSource.optional(),
  ]);
  const needed = Object.values(home.credentials).some(({ required }) => required === true);
  const allCredentials = z.strictObject(Object.fromEntries(credentials));
  return z.strictObject({
    type: z.literal(type),
    ...Object.fromEntries(parameters),
    ...(credentials.length > 0 ? { credentials: needed ? allCredentials : allCredentials.optional() } : {}),
    ...more,
  });
}

type Flat = {
  readonly type: string;
  readonly credentials?: Readonly<Record<string, CredentialSource | undefined>>;
} & Readonly<Record<string, unknown>>;

function nested(given: Flat, home: Home) {
  const present = (names: object, from: Readonly<Record<string, unknown>>) =>
    Object.fromEntries(
      Object.keys(names).flatMap((name) => (from[name] === undefined ? [] : [[name, from[name]]])),
    );
  return {
    parameters: present(home.parameters, given) as Record<string, string>,
    credentials: present(home.credentials, given.credentials ?? {}) as Record<string, CredentialSource>,
  };
}

const storeSchema = z
  .discriminatedUnion(
    'type',
    Object.entries(STORE_HOMES).map(([name, home]) => flat(name, home, {})) as unknown as [z.ZodObject],
    `must name a store by its type: one of ${Object.keys(STORE_HOMES).join(', ')}`,
  )
  .transform((given) => {
    const type = (given as Flat).type as StoreName;
    return { type, ...nested(given as Flat, STORE_HOMES[type]) } satisfies StoreConfig;
  });

const KUBERNETES: StoreConfig = { type: 'kubernetes', parameters: {}, credentials: {} };

/** The section `kms` of a configuration. */
export const kmsSchema: z.ZodType<KmsConfig> = z
  .discriminatedUnion(
    'type',
    [
      z.strictObject({ type: z.literal('cluster') }),
      ...Object.entries(KMS_HOMES).map(([name, home]) =>
        flat(name, home, {
          v26Blobs: z.literal('accept', "must be 'accept', or be left out").optional(),
          store: storeSchema.optional(),
        }),
      ),
    ] as unknown as [z.ZodObject],
    `must name a KMS by its type: 'cluster', where keys are derived from the master secret, or one of ${Object.keys(KMS_HOMES).join(', ')}`,
  )
  .transform((given): KmsConfig => {
    const { type, store, v26Blobs } = given as Flat & { store?: StoreConfig; v26Blobs?: string };
    if (type === 'cluster') return { type };
    const name = type as KmsName;
    return {
      type: name,
      ...nested(given as Flat, KMS_HOMES[name]),
      v26Blobs: v26Blobs !== undefined,
      store: store ?? KUBERNETES,
    };
  });

/** The section as it stands in a file, without comments: what {@link kmsSchema} reads. */
export function flatKms(kms: KmsConfig): Record<string, unknown> {
  if (kms.type === 'cluster') return { type: 'cluster' };
  const { type, parameters, credentials, v26Blobs, store } = kms;
  const some = (sources: object) => (Object.keys(sources).length === 0 ? {} : { credentials: sources });
  return {
    type,
    ...parameters,
    ...some(credentials),
    ...(v26Blobs ? { v26Blobs: 'accept' } : {}),
    store: { type: store.type, ...store.parameters, ...some(store.credentials) },
  };
}
