import type { AddressInfo, Server } from 'node:net';
import { UnreachableError } from '@asterism/errors/errors';

/**
 * @param port 0 for any free one
 * @throws UnreachableError when the address cannot be had
 */
export function listen(server: Server, port: number, host?: string): Promise<AddressInfo> {
  return new Promise((resolve, reject) => {
    const failed = (cause: Error) =>
      reject(new UnreachableError(`cannot listen on ${host ?? '*'}:${port}: ${cause.message}`, { cause }));
    server.once('error', failed);
    server.listen({ port, ...(host === undefined ? {} : { host }) }, () => {
      server.removeListener('error', failed);
      resolve(server.address() as AddressInfo);
    });
  });
}
