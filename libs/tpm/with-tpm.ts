import { type Deadline, deadlineAfter, remainingMs } from './deadline.ts';
import { Tpm } from './tpm.ts';
import { openTransport } from './transport.ts';
import { takeTurn } from './turns.ts';

const DEFAULT_TIMEOUT_MS = 30_000;

/**
 * Waits for its turn at a TPM, connects, runs one sequence of commands, and disconnects, so that others get theirs
 * (swtpm serves one connection at a time). Within this process turns are first come, first served.
 *
 * @param address `swtpm:/path` or `device:/path`
 * @param use commands to be sent; it must not keep the Tpm
 * @param options.timeoutMs for waiting, connecting and all commands together; default 30 s
 * @throws UnreachableError ERR_TPM_UNREACHABLE (no TPM), ERR_TPM_TIMEOUT, ERR_TPM_BUSY (too many wait already)
 * @throws TpmError the TPM refused a command
 * @throws ParseError the address has another form, or the TPM's answer has
 */
export async function withTpm<T>(
  address: string,
  use: (tpm: Tpm) => Promise<T>,
  options: { readonly timeoutMs?: number } = {},
): Promise<T> {
  const deadline: Deadline = deadlineAfter(options.timeoutMs ?? DEFAULT_TIMEOUT_MS);
  const endTurn = await takeTurn(address, remainingMs(deadline));
  try {
    const transport = await openTransport(address, deadline);
    try {
      return await use(new Tpm(transport, deadline));
    } finally {
      await transport.close();
    }
  } finally {
    endTurn();
  }
}
