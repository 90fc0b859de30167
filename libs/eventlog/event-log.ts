import { Reader } from '@asterism/bytes/reader';
import { ParseError } from '@asterism/errors/errors';

/** TPM_ALG_ID -> digest length and WebCrypto name, for the banks that logs carry. */
const HASHES: ReadonlyMap<number, { readonly size: number; readonly name: string }> = new Map([
  [0x0004, { size: 20, name: 'SHA-1' }],
  [0x000b, { size: 32, name: 'SHA-256' }],
  [0x000c, { size: 48, name: 'SHA-384' }],
  [0x000d, { size: 64, name: 'SHA-512' }],
]);

export const SHA1 = 0x0004;
export const SHA256 = 0x000b;

/** Event types that matter here (TCG PC Client Platform Firmware Profile, section 10.4.1). */
export const EventType = {
  /** For readers only: nothing is extended. */
  NO_ACTION: 0x03,
  /** Something that a boot loader loaded. */
  IPL: 0x0d,
} as const;

export interface LogEvent {
  readonly pcr: number;
  readonly type: number;
  /** TPM_ALG_ID -> digest. */
  readonly digests: ReadonlyMap<number, Uint8Array>;
  readonly data: Uint8Array;
}

export interface EventLog {
  /** Banks that every event has a digest for. */
  readonly banks: readonly number[];
  readonly events: readonly LogEvent[];
  /** What PCR 0 started from: the locality of the startup command. */
  readonly startupLocality: number;
}

/** A log of firmware and loaders is tens of kilobytes. */
export const MAX_LOG_BYTES = 1 << 20;
const MAX_EVENTS = 10_000;
const SPEC_ID = 'Spec ID Event03\0';
const STARTUP_LOCALITY = 'StartupLocality\0';

/**
 * Parses a TCG event log: crypto-agile (section 10.2 of the profile) where it begins with a Spec ID event, else the
 * older form with SHA-1 only. Trailing zero bytes (firmware hands out its whole buffer) are ignored.
 *
 * @throws ParseError
 */
export function parseEventLog(bytes: Uint8Array): EventLog {
  if (bytes.length > MAX_LOG_BYTES) new Reader(bytes).fail(`event log of ${bytes.length} bytes`);
  const reader = new Reader(bytes);
  const first = readLegacyEvent(reader);
  const sizes = first.type === EventType.NO_ACTION ? readSpecId(first.data) : undefined;
  if (sizes !== undefined && first.pcr !== 0) reader.fail(`the header is an event of PCR ${first.pcr}`);
  const events: LogEvent[] = [first];
  while (reader.remaining > 0 && !isPadding(bytes.subarray(reader.offset))) {
    if (events.length >= MAX_EVENTS) reader.fail(`more than ${MAX_EVENTS} events`);
    events.push(sizes === undefined ? readLegacyEvent(reader) : readAgileEvent(reader, sizes));
  }
  const banks = sizes === undefined ? [SHA1] : [...sizes.keys()];
  return { banks, events, startupLocality: startupLocality(events) };
}

function isPadding(rest: Uint8Array): boolean {
  return rest.length < 32
    ? rest.every((byte) => byte === 0)
    : rest.subarray(0, 32).every((byte) => byte === 0);
}

function readLegacyEvent(reader: Reader): LogEvent {
  const pcr = readPcr(reader);
  const type = reader.u32le('event type');
  const digest = reader.bytes(20, 'digest');
  const data = reader.bytes(reader.u32le('event size'), 'event data');
  return { pcr, type, digests: new Map([[SHA1, digest]]), data };
}

function readPcr(reader: Reader): number {
  const pcr = reader.u32le('PCR index');
  // 0xffffffff marks events that are not measured (NO_ACTION of some firmware).
  if (pcr > 23 && pcr !== 0xffffffff) reader.fail(`PCR index ${pcr}`);
  return pcr;
}

function readAgileEvent(reader: Reader, sizes: ReadonlyMap<number, number>): LogEvent {
  const pcr = readPcr(reader);
  const type = reader.u32le('event type');
  const count = reader.u32le('number of digests');
  if (count > sizes.size) reader.fail(`${count} digests in a log of ${sizes.size} banks`);
  const digests = new Map<number, Uint8Array>();
  for (let i = 0; i < count; i++) {
    const hash = reader.u16le('digest algorithm');
    const size = sizes.get(hash);
    if (size === undefined) reader.fail(`digest algorithm 0x${hash.toString(16)} is not in the header`);
    if (digests.has(hash)) reader.fail('two digests of one algorithm');
    digests.set(hash, reader.bytes(size, 'digest'));
  }
  const data = reader.bytes(reader.u32le('event size'), 'event data');
  return { pcr, type, digests, data };
}

function readSpecId(data: Uint8Array): Map<number, number> | undefined {
  const reader = new Reader(data);
  if (reader.remaining < 16) return undefined;
  const signature = reader.bytes(16);
  if (!startsWith(signature, SPEC_ID)) return undefined;
  reader.bytes(8, 'platform class, version, uintn size');
  const count = reader.u32le('number of algorithms');
  if (count === 0 || count > HASHES.size + 4) reader.fail(`${count} algorithms`);
  const sizes = new Map<number, number>();
  for (let i = 0; i < count; i++) {
    const hash = reader.u16le('algorithm');
    const size = reader.u16le('digest size');
    if (size > 64 || (HASHES.get(hash)?.size ?? size) !== size) reader.fail(`digest size ${size}`);
    if (sizes.has(hash)) reader.fail('two digest sizes of one algorithm');
    sizes.set(hash, size);
  }
  reader.bytes(reader.u8('size of vendor information'), 'vendor information');
  reader.end('Spec ID event');
  return sizes;
}

function startsWith(bytes: Uint8Array, text: string): boolean {
  return bytes.length >= text.length && [...text].every((c, i) => bytes[i] === c.charCodeAt(0));
}

function startupLocality(events: readonly LogEvent[]): number {
  const event = events.find((e) => e.type === EventType.NO_ACTION && startsWith(e.data, STARTUP_LOCALITY));
  return event?.data[16] ?? 0;
}

/**
 * What the PCRs of one bank read after the log's events. PCRs without an event are absent.
 * @param hash TPM_ALG_ID of the bank
 */
export async function replay(log: EventLog, hash: number): Promise<Map<number, Uint8Array>> {
  const algorithm = HASHES.get(hash);
  if (algorithm === undefined) throw new ParseError(`bank 0x${hash.toString(16)} is not known`);
  const digestsOf = new Map<number, Uint8Array[]>();
  for (const event of log.events) {
    if (event.type === EventType.NO_ACTION || event.pcr > 23) continue;
    const digest = event.digests.get(hash);
    if (digest === undefined) throw new ParseError(`an event of PCR ${event.pcr} has no digest of the bank`);
    const digests = digestsOf.get(event.pcr);
    if (digests === undefined) digestsOf.set(event.pcr, [digest]);
    else digests.push(digest);
  }
  const pcrs = await Promise.all(
    [...digestsOf].map(async ([pcr, digests]): Promise<[number, Uint8Array]> => {
      const input = new Uint8Array(2 * algorithm.size);
      input.set(initialValue(pcr, algorithm.size, log.startupLocality));
      for (const digest of digests) {
        input.set(digest, algorithm.size);
        input.set(new Uint8Array(await crypto.subtle.digest(algorithm.name, input)));
      }
      return [pcr, input.slice(0, algorithm.size)];
    }),
  );
  return new Map(pcrs);
}

function initialValue(pcr: number, size: number, locality: number): Uint8Array {
  const value = new Uint8Array(size).fill(pcr >= 17 && pcr <= 22 ? 0xff : 0);
  if (pcr === 0) value[size - 1] = locality;
  return value;
}
