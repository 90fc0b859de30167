import { ParseError } from '@asterism/errors/errors';
import type { Deadline } from './deadline.ts';
import { openDevice } from './transport-device.ts';
import { openSocket } from './transport-swtpm.ts';

/** Carries one command to a TPM and its response back. One command at a time. */
export interface Transport {
  /** @throws UnreachableError when the TPM does not answer in time; the transport is of no use then */
  transmit(command: Uint8Array, deadline: Deadline): Promise<Uint8Array>;
  close(): Promise<void>;
}

/**
 * Opens `swtpm:/path/of/socket` or `device:/dev/tpmrm0`.
 * @throws ParseError ERR_TPM_ADDRESS: the address has another form
 * @throws UnreachableError ERR_TPM_UNREACHABLE | ERR_TPM_TIMEOUT
 */
export function openTransport(address: string, deadline: Deadline): Promise<Transport> {
  const [, kind, path] = /^(swtpm|device):(\/.+)$/s.exec(address) ?? [];
  if (path === undefined) {
    throw new ParseError(`TPM address ${address} is neither swtpm:/PATH nor device:/PATH`, {
      code: 'ERR_TPM_ADDRESS',
    });
  }
  return kind === 'swtpm' ? openSocket(path, deadline) : openDevice(path);
}
