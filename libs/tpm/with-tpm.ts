import { Tpm } from './tpm.ts';
import { openTransport } from './transport.ts';

/** One user of an address at a time within this process; others wait in line. */
const lines = new Map<string, Promise<unknown>>();

/**
 * Connects to a TPM, runs one sequence of commands, and disconnects, so that other processes get their turn (swtpm
 * serves one connection at a time; the next waits in its backlog).
 *
 * @param address `swtpm:/path` or `device:/path`
 * @throws UnreachableError | TpmError
 */
export async function withTpm<T>(
  address: string,
  use: (tpm: Tpm) => Promise<T>,
  options: { readonly timeoutMs?: number } = {},
): Promise<T> {
  const before = lines.get(address) ?? Promise.resolve();
  const run = before.then(async () => {
    const transport = await openTransport(address, options.timeoutMs ?? 10_000);
    try {
      return await use(new Tpm(transport));
    } finally {
      await transport.close();
    }
  });
  const settled = run.catch(() => {});
  lines.set(address, settled);
  void settled.then(() => {
    if (lines.get(address) === settled) lines.delete(address);
  });
  return run;
}
