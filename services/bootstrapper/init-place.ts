import { setTimeout as sleep } from 'node:timers/promises';
import type { InstanceMetadata, Metadata } from '@asterism/metadata/types';

/** Where, by the provider's word, a cluster takes its init. */
export type InitPlace =
  | { readonly place: 'here' }
  | { readonly place: 'elsewhere'; readonly why: string }
  /** The provider does not know enough yet. */
  | { readonly place: 'unknown'; readonly why: string };

/**
 * Exactly one machine takes the init of a cluster: the control plane whose name comes first. An init that is repeated
 * behind a load balancer would otherwise reach another fresh machine and make a second cluster of the same id.
 * @param all every machine of the cluster, in any order
 */
export function initPlace(self: InstanceMetadata, all: readonly InstanceMetadata[]): InitPlace {
  if (self.role === 'Worker') return { place: 'elsewhere', why: 'this machine is a worker' };
  if (self.role === 'Unknown') return unknown('the role of this machine is not known');
  const own = all.filter(({ name }) => name === self.name);
  if (own.length !== 1 || own[0]?.role !== 'ControlPlane') {
    return unknown(`${self.name} is not listed once, as a control plane, among the machines of the cluster`);
  }
  // Code units: every machine must come to the same order, whatever its locale.
  const earlier = all.filter(({ name }) => name < self.name);
  const first = earlier.find(({ role }) => role === 'ControlPlane');
  if (first !== undefined) return { place: 'elsewhere', why: `${first.name} comes before ${self.name}` };
  const open = earlier.find(({ role }) => role === 'Unknown');
  if (open !== undefined) return unknown(`the role of ${open.name}, which comes before, is not known`);
  return { place: 'here' };
}

export interface SettleOptions {
  readonly metadata: Pick<Metadata, 'self' | 'list'>;
  readonly log: { info(fields: object, message: string): void };
  readonly signal: AbortSignal;
  /** Milliseconds before the second look, doubled for each later one. Default 1,000. */
  readonly firstWaitMs?: number;
  /** Default 15,000. */
  readonly maxWaitMs?: number;
}

/**
 * Asks the provider until it knows.
 * @throws whatever `signal` aborts with
 */
export async function settleInitPlace(
  options: SettleOptions,
): Promise<Exclude<InitPlace, { place: 'unknown' }>> {
  const { metadata, log, signal } = options;
  const maxWaitMs = options.maxWaitMs ?? 15_000;
  let said = '';
  for (let waitMs = options.firstWaitMs ?? 1000; ; waitMs = Math.min(2 * waitMs, maxWaitMs)) {
    const found = await lookUp(metadata, signal);
    signal.throwIfAborted();
    if (found.place !== 'unknown') return found;
    if (found.why !== said) log.info({ why: found.why }, 'waiting: it is not known yet who takes the init');
    said = found.why;
    await sleep(waitMs, undefined, { signal });
  }
}

/** One look; a provider that does not answer knows nothing. */
export async function lookUp(
  metadata: Pick<Metadata, 'self' | 'list'>,
  signal?: AbortSignal,
): Promise<InitPlace> {
  try {
    return initPlace(await metadata.self(signal), await metadata.list(signal));
  } catch (error) {
    return unknown(`metadata: ${error instanceof Error ? error.message : error}`);
  }
}

function unknown(why: string): InitPlace {
  return { place: 'unknown', why };
}
