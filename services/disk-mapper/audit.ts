import { rename } from 'node:fs/promises';
import { basename } from 'node:path';
import { AsterismError } from '@asterism/errors/errors';
import { type AuditEvent, AuditLog } from '@asterism/runtime/audit-log';
import { Refusals } from '@asterism/runtime/refusals';

/** By which way somebody gave, or wanted to give, this node its key. */
export interface Attempt {
  readonly event: 'recovery' | 'rejoin';
  /** Of the caller, or of the JoinService that was asked. */
  readonly address: string;
}

/** Beyond these, refusals are counted only. */
const MAX_KEPT = 1000;

/**
 * Who opened this node's disk, and who was refused. The log lies on that very disk: refusals are kept in memory until
 * it is open, and a grant is answered only after it and they are written.
 */
export class MemberAudit {
  readonly #path: string;
  readonly #refusals = new Refusals();
  #waiting: AuditEvent[] = [];
  #notKept = 0;

  constructor(path: string) {
    this.#path = path;
  }

  refused({ event, address }: Attempt, reason: string): void {
    const times = this.#refusals.count(`${event} ${address}`);
    if (times === undefined) return;
    if (this.#waiting.length >= MAX_KEPT) this.#notKept++;
    else {
      const refusedAt = new Date().toISOString();
      this.#waiting.push({ event, outcome: 'refused', address, reason, times, refusedAt });
    }
  }

  /**
   * To be called while the volume is open; the file is closed again when it resolves.
   * @throws AsterismError ERR_AUDIT_LOG nothing may be granted
   */
  async granted({ event, address }: Attempt, diskUuid: string): Promise<void> {
    const refused = this.#waiting;
    const notKept = this.#notKept;
    this.#waiting = [];
    this.#notKept = 0;
    try {
      await append(this.#path, [
        ...refused,
        ...(notKept === 0
          ? []
          : [{ event: 'refusals-not-kept', outcome: 'refused', count: notKept } as const]),
        { event, outcome: 'granted', address, diskUuid },
      ]);
    } catch (error) {
      this.#waiting = [...refused, ...this.#waiting];
      this.#notKept += notKept;
      throw error;
    }
  }
}

async function append(path: string, events: readonly AuditEvent[]): Promise<void> {
  const log = await openLog(path);
  try {
    await Promise.all(events.map((event) => log.append(event)));
  } finally {
    await log.close();
  }
}

async function openLog(path: string): Promise<AuditLog> {
  try {
    return await AuditLog.open(path);
  } catch (error) {
    if (!(error instanceof AsterismError && error.code === 'ERR_AUDIT_LOG')) throw error;
  }
  // Nobody can look after a log whose disk is not open, and a chain that broke must not keep the cluster's data closed
  // for ever: it is kept, and the new one begins by saying so.
  const broken = `${path}.broken-${Date.now()}`;
  await rename(path, broken);
  const log = await AuditLog.open(path);
  await log.append({ event: 'audit-log-broken', outcome: 'refused', keptAs: basename(broken) });
  return log;
}
