import type { AddressInfo, Server } from 'node:net';
import { UnreachableError } from '@asterism/errors/errors';

/** A port, 0 for any free one; or a socket that listens already, as systemd passes one on. */
export type ListenAt = number | { readonly fd: number };

/** @throws UnreachableError when the address cannot be had */
export function listen(server: Server, at: ListenAt, host?: string): Promise<AddressInfo> {
  return new Promise((resolve, reject) => {
    const failed = (cause: Error) =>
      reject(new UnreachableError(`cannot listen on ${where}: ${cause.message}`, { cause }));
    const where = typeof at === 'number' ? `${host ?? '*'}:${at}` : `file descriptor ${at.fd}`;
    server.once('error', failed);
    const target = typeof at === 'number' ? { port: at, ...(host === undefined ? {} : { host }) } : at;
    server.listen(target, () => {
      server.removeListener('error', failed);
      resolve(server.address() as AddressInfo);
    });
  });
}
