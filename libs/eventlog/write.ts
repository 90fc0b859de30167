import { toUtf8 } from '@asterism/bytes/encoding';
import { Writer } from '@asterism/bytes/writer';
import { EventType, SHA256 } from './event-log.ts';

/** One measured stage. */
export interface Measured {
  readonly pcr: number;
  /** SHA-256 that was extended (32 bytes). */
  readonly digest: Uint8Array;
  /** For people; not hashed. */
  readonly description: string;
}

/** A crypto-agile event log with a SHA-256 bank: the Spec ID event, then one EV_IPL event per stage. */
export function writeEventLog(stages: readonly Measured[]): Uint8Array {
  const specId = new Writer()
    .bytes(toUtf8('Spec ID Event03\0'))
    .u32le(0)
    .u8(0) // minor version
    .u8(2) // major version
    .u8(0) // errata
    .u8(2) // uintn size: 64 bits
    .u32le(1)
    .u16le(SHA256)
    .u16le(32)
    .u8(0) // no vendor information
    .finish();
  const writer = new Writer().u32le(0).u32le(EventType.NO_ACTION).bytes(new Uint8Array(20));
  writer.u32le(specId.length).bytes(specId);
  for (const { pcr, digest, description } of stages) {
    if (digest.length !== 32) throw new RangeError(`a SHA-256 of ${digest.length} bytes`);
    const data = toUtf8(`${description}\0`);
    writer
      .u32le(pcr)
      .u32le(EventType.IPL)
      .u32le(1)
      .u16le(SHA256)
      .bytes(digest)
      .u32le(data.length)
      .bytes(data);
  }
  return writer.finish();
}
