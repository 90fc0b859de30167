import { AsterismError, UnreachableError } from '@asterism/errors/errors';
import type { AuditLog } from '@asterism/runtime/audit-log';
import { Refusals } from '@asterism/runtime/refusals';
import { Counter, type Registry } from 'prom-client';

/** Records who was refused before it could ask for anything: its evidence is false, or not what the policy demands. */
export function refusedHandshakes(
  audit: AuditLog,
  registry: Registry,
): (error: Error, address: string) => void {
  const counter = new Counter({
    name: 'asterism_join_handshakes_refused_total',
    help: 'Connections that were closed before their peer was verified',
    labelNames: ['reason'],
    registers: [registry],
  });
  const refusals = new Refusals();
  return (error, address) => {
    const reason = error instanceof AsterismError ? error.code : 'tls';
    counter.inc({ reason });
    // Connections that say nothing, or no TLS, have shown no evidence.
    if (!(error instanceof AsterismError) || error instanceof UnreachableError) return;
    // By reason: what is wrong with a peer must not hide in the series of what was wrong before.
    const times = refusals.count(`${address} ${reason}`);
    if (times === undefined) return;
    // A log that cannot be written makes the service broken by itself.
    audit.append({ event: 'handshake', outcome: 'refused', address, reason, times }).catch(() => {});
  };
}
