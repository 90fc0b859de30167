export type Role = 'ControlPlane' | 'Worker' | 'Unknown';

/** What the provider says of one machine. */
export interface InstanceMetadata {
  readonly name: string;
  readonly providerId: string;
  readonly role: Role;
  /** IPv4 address in the cluster's network; undefined while it has none. */
  readonly vpcIp: string | undefined;
  readonly secondaryIpRange: string;
  readonly aliasIpRanges: readonly string[];
}

/** What a node can learn of itself and its peers. The provider is trusted for availability and roles, never for keys. */
export interface Metadata {
  self(signal?: AbortSignal): Promise<InstanceMetadata>;
  list(signal?: AbortSignal): Promise<InstanceMetadata[]>;
  /** Host or host:port behind which the control planes stand. */
  loadBalancerEndpoint(signal?: AbortSignal): Promise<string>;
  /** bcrypt hash of the init secret. */
  initSecretHash(signal?: AbortSignal): Promise<string>;
}
