import { AsterismError } from '@asterism/errors/errors';
import type { Machines } from '../machines.ts';
import type { NodeImages } from '../parts.ts';

const missing = (what: string) => async (): Promise<never> => {
  throw new AsterismError('ERR_NOT_IN_RELEASE', `${what} is not part of this release yet`);
};

/** To be replaced by the provider `local` as soon as it is in the tree; until then commands that need it say so. */
export const machines: Machines = {
  create: missing('the provider `local`'),
  destroy: missing('the provider `local`'),
  status: missing('the provider `local`'),
  start: missing('the provider `local`'),
  stop: missing('the provider `local`'),
  exec: missing('the provider `local`'),
  logs: missing('the provider `local`'),
};

/** The same for the image builder. */
export const nodeImages: NodeImages = {
  built: async () => undefined,
  build: missing('the image builder'),
};
