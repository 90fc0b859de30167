import { spawnSync } from 'node:child_process';
import { cpus, loadavg, release, totalmem } from 'node:os';

/** What results depend on. */
export interface MachineFacts {
  readonly date: string;
  readonly cpu: string;
  readonly cores: number;
  readonly memoryGiB: number;
  readonly kernel: string;
  readonly node: string;
  readonly openssl: string;
  /** Of the last minute, before the benches ran: above 0.5 other programs were in the way. */
  readonly load: number;
}

export function machineFacts(): MachineFacts {
  const all = cpus();
  return {
    date: new Date().toISOString(),
    cpu: all[0]?.model.trim() ?? 'unknown',
    cores: all.length,
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    kernel: release(),
    node: process.version,
    openssl: `${process.versions.openssl} in Node`,
    load: Number((loadavg()[0] ?? 0).toFixed(2)),
  };
}

/**
 * Operations per second on one core, as `openssl speed` of the machine measures them.
 *
 * @param algorithms e.g. `ecdsap256`
 * @returns by algorithm; undefined where there is no openssl
 */
export function opensslSpeed(
  algorithms: readonly string[],
): ReadonlyMap<string, { readonly sign: number; readonly verify: number }> | undefined {
  const run = spawnSync('openssl', ['speed', '-mr', '-seconds', '1', ...algorithms], {
    encoding: 'utf8',
    timeout: 60_000,
  });
  if (run.status !== 0) return undefined;
  const found = new Map<string, { sign: number; verify: number }>();
  // +F4:<index>:<bits>:<signatures per second>:<verifications per second>, in the order asked for
  const lines = run.stdout.split('\n').filter((line) => line.startsWith('+F4:'));
  for (const [index, line] of lines.entries()) {
    const [, , , sign, verify] = line.split(':').map(Number);
    const name = algorithms[index];
    if (name !== undefined && sign && verify) found.set(name, { sign, verify });
  }
  return found;
}
