import { UnreachableError } from '@asterism/errors/errors';

/** More would only wait for each other until their time is up. */
const MAX_WAITING = 256;

/** Who waits for an address, the first in line first. An address is in the map while somebody has the turn. */
const lines = new Map<string, (() => void)[]>();

/**
 * Waits for the turn at an address.
 * @returns ends the turn; to be called exactly once
 * @throws UnreachableError ERR_TPM_BUSY | ERR_TPM_TIMEOUT
 */
export async function takeTurn(address: string, timeoutMs: number): Promise<() => void> {
  const line = lines.get(address);
  if (line === undefined) {
    lines.set(address, []);
    return () => passOn(address);
  }
  if (line.length >= MAX_WAITING) {
    throw new UnreachableError(`${line.length} requests wait for the TPM at ${address} already`, {
      code: 'ERR_TPM_BUSY',
    });
  }
  await new Promise<void>((resolve, reject) => {
    const timer = setTimeout(() => {
      line.splice(line.indexOf(called), 1);
      reject(
        new UnreachableError(`no turn at the TPM at ${address} within ${Math.round(timeoutMs)} ms`, {
          code: 'ERR_TPM_TIMEOUT',
        }),
      );
    }, timeoutMs);
    const called = () => {
      clearTimeout(timer);
      resolve();
    };
    line.push(called);
  });
  return () => passOn(address);
}

function passOn(address: string): void {
  const next = lines.get(address)?.shift();
  if (next === undefined) lines.delete(address);
  else next();
}
