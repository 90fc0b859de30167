import { goAway, readGoAway } from './go-away.ts';

export const name = 'rpc/go-away';

export const seeds = [goAway('the evidence is false'), goAway('')];

/** The first bytes of a server are a reason in printable ASCII, or none. */
export function run(input: Uint8Array): void {
  const reason = readGoAway(input);
  if (reason !== undefined && !/^[ -~]{0,256}$/.test(reason))
    throw new Error('took more than printable text');
}
