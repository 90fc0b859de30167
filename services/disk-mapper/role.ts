import { UnreachableError } from '@asterism/errors/errors';
import type { Metadata } from '@asterism/metadata/types';
import { untilItWorks } from './until.ts';

/** The role of this machine: asked for until the provider knows it, or the signal aborts. */
export function knownRole(
  metadata: Pick<Metadata, 'self'>,
  log: { warn(fields: object, message: string): void },
  signal: AbortSignal,
): Promise<'ControlPlane' | 'Worker'> {
  return untilItWorks(
    async () => {
      const { role } = await metadata.self(signal);
      if (role === 'Unknown') throw new UnreachableError('the provider does not say yet which role it has');
      return role;
    },
    (err) => log.warn({ err }, 'the role of this machine is not known yet; it is asked for again'),
    signal,
  );
}
