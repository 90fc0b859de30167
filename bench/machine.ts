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
 * @throws Error there is no openssl, or it says something else
 */
export function opensslSpeed(algorithm: string): { readonly sign: number; readonly verify: number } {
  const run = spawnSync('openssl', ['speed', '-mr', '-seconds', '1', algorithm], {
    encoding: 'utf8',
    timeout: 60_000,
  });
  // +F2 (RSA) or +F4 (ECDSA):<index>:<bits>:<signatures per second>:<verifications per second>
  const line = run.stdout?.split('\n').find((one) => /^\+F[24]:/.test(one));
  const [, , , sign, verify] = (line ?? '').split(':').map(Number);
  if (run.status !== 0 || !sign || !verify) {
    throw new Error(
      `openssl speed ${algorithm} says nothing (${run.error?.message ?? `exit ${run.status}`})`,
    );
  }
  return { sign, verify };
}
