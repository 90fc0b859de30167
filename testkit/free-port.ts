import { randomInt } from 'node:crypto';
import { createServer } from 'node:net';

/** Below the ports that the kernel gives to connections and to listeners on port 0: what was free stays free. */
const RANGE = [15_000, 30_000] as const;
const ATTEMPTS = 100;

/** A TCP port that nobody listens at, on any address of this machine. */
export async function freePort(): Promise<number> {
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    const port = randomInt(...RANGE);
    const free = await new Promise<boolean>((resolve) => {
      const server = createServer();
      server.once('error', () => resolve(false));
      server.listen(port, () => server.close(() => resolve(true)));
    });
    if (free) return port;
  }
  throw new Error(`no free port found in ${ATTEMPTS} attempts`);
}
