import { AsterismError } from '@asterism/errors/errors';
import { KMS_HOMES, type KmsName, STORE_HOMES, type StoreName } from './catalogue.ts';
import { type ClusterKey, NO_STORE_URI, parseClusterKmsUri, renderClusterKmsUri } from './cluster-uri.ts';
import { parseGeneration } from './generation.ts';
import type { Home } from './settings.ts';
import { badUri, parseUri, type RawUri, renderUri, sayable } from './uri-query.ts';
import { faultOf, optional } from './values.ts';

const KMS = 'kms://';
const STORAGE = 'storage://';
const CLUSTER = `${KMS}cluster-kms`;
const CLUSTER_ID = /^[0-9a-f]{64}$/;

type Values = Readonly<Record<string, string>>;

/** The cluster's own KMS. As secret as the master secret. */
export interface ClusterReference extends ClusterKey {
  readonly kind: 'cluster';
  readonly generation: number;
}

export interface ExternalReference {
  readonly kind: 'external';
  readonly name: KmsName;
  readonly parameters: Values;
  /** 64 hexadecimal digits in lower case; v2.6 wrote none. */
  readonly clusterId?: string;
  readonly generation: number;
  /** Whether wrapped keys of v2.6 are read, which are bound to no cluster and no id. */
  readonly acceptV26Blobs: boolean;
  /** As v2.6 put them in. Never printed. */
  readonly credentials: Values;
}

export type KmsReference = ClusterReference | ExternalReference;

export interface StoreReference {
  readonly name: StoreName;
  readonly parameters: Values;
  /** As v2.6 put them in. Never printed. */
  readonly credentials: Values;
}

/**
 * Which KMS a URI names (README, "URIs"). No message quotes a value.
 * @throws ParseError ERR_KMS_URI
 * @throws AsterismError ERR_KMS_UNSUPPORTED no such KMS
 */
export function parseKmsUri(text: string): KmsReference {
  if (text === CLUSTER || text.startsWith(`${CLUSTER}?`))
    return { kind: 'cluster', generation: 1, ...parseClusterKmsUri(text) };
  const uri = parseUri(text);
  const name = nameIn(uri, KMS, KMS_HOMES);
  if (name === undefined) throw unsupported('KMS', ['cluster-kms', ...Object.keys(KMS_HOMES)]);
  const { clusterID, generation, v26Blobs, ...rest } = Object.fromEntries(uri.parameters);
  const clusterId = clusterID?.toLowerCase();
  if (clusterId !== undefined && !CLUSTER_ID.test(clusterId))
    throw badUri('clusterID has not 64 hexadecimal digits');
  const number = parseGeneration(generation ?? '1');
  if (number === undefined) throw badUri('generation is no number from 1');
  if (v26Blobs !== undefined && v26Blobs !== 'accept')
    throw badUri('v26Blobs has one value, accept; leave it out otherwise');
  return {
    kind: 'external',
    name,
    ...sorted(`${KMS}${name}`, KMS_HOMES[name], rest),
    ...(clusterId !== undefined && { clusterId }),
    generation: number,
    acceptV26Blobs: v26Blobs === 'accept',
  };
}

/** The URI of a KMS; an external one without its credentials. */
export function renderKmsUri(reference: KmsReference): string {
  if (reference.kind === 'cluster') return renderClusterKmsUri(reference);
  const { name, parameters, clusterId, generation, acceptV26Blobs } = reference;
  return renderUri(`${KMS}${name}`, {
    ...inOrder(KMS_HOMES[name], parameters),
    clusterID: clusterId,
    generation: generation > 1 ? String(generation) : undefined,
    v26Blobs: acceptV26Blobs ? 'accept' : undefined,
  });
}

/**
 * Which store a URI names; `none` is what goes with the cluster KMS.
 * @throws ParseError ERR_KMS_URI
 * @throws AsterismError ERR_KMS_UNSUPPORTED no such store
 */
export function parseStoreUri(text: string): StoreReference | 'none' {
  if (text === NO_STORE_URI) return 'none';
  const uri = parseUri(text);
  const name = nameIn(uri, STORAGE, STORE_HOMES);
  if (name === undefined) throw unsupported('storage', ['no-store', ...Object.keys(STORE_HOMES)]);
  return {
    name,
    ...sorted(`${STORAGE}${name}`, STORE_HOMES[name], Object.fromEntries(uri.parameters)),
  };
}

/** The URI of a store, without its credentials. */
export function renderStoreUri(reference: StoreReference | 'none'): string {
  if (reference === 'none') return NO_STORE_URI;
  const { name, parameters } = reference;
  return renderUri(`${STORAGE}${name}`, inOrder(STORE_HOMES[name], parameters));
}

function nameIn<N extends string>(
  { base }: RawUri,
  scheme: string,
  homes: Readonly<Record<N, Home>>,
): N | undefined {
  const name = base.slice(scheme.length);
  return base.startsWith(scheme) && Object.hasOwn(homes, name) ? (name as N) : undefined;
}

/** Parameters apart from the credentials of v2.6, each checked against its row of the catalogue. */
function sorted(base: string, home: Home, given: Values): { parameters: Values; credentials: Values } {
  const parameters: Record<string, string> = {};
  const credentials: Record<string, string> = {};
  for (const [name, value] of Object.entries(given)) {
    if (Object.hasOwn(home.parameters, name)) parameters[name] = value;
    else if (Object.hasOwn(home.credentials, name)) credentials[name] = value;
    else throw badUri(`${base} does not know ${sayable(name)}`);
  }
  // Credentials may come another way: what is missing is judged when the home is opened.
  const fault = faultOf(home.parameters, parameters) ?? faultOf(optional(home.credentials), credentials);
  if (fault !== undefined) throw badUri(`${base}: ${fault}`);
  return { parameters, credentials };
}

function inOrder(home: Home, parameters: Values): Record<string, string | undefined> {
  return Object.fromEntries(Object.keys(home.parameters).map((name) => [name, parameters[name]]));
}

function unsupported(what: string, names: readonly string[]): AsterismError {
  return new AsterismError('ERR_KMS_UNSUPPORTED', `no such ${what}; there are: ${names.join(', ')}`);
}
