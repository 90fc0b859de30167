import { toUtf8 } from '@asterism/bytes/encoding';
import { Writer } from '@asterism/bytes/writer';

// RFC 9113: 6.5 SETTINGS, 6.8 GOAWAY, 7 INADEQUATE_SECURITY.
const SETTINGS = 0x04;
const GOAWAY = 0x07;
const INADEQUATE_SECURITY = 0x0c;
const FRAME_HEADER = 9;
const MAX_REASON = 256;

/**
 * What a server says over HTTP/2 to a peer that it will not serve: empty SETTINGS (a server's first frame must be
 * that) and GOAWAY with the reason. Fixed bytes: HTTP/2 code never touches the connection.
 */
export function goAway(reason: string): Uint8Array {
  const text = toUtf8(reason).subarray(0, MAX_REASON);
  return new Writer()
    .u24be(0)
    .u8(SETTINGS)
    .u8(0)
    .u32be(0)
    .u24be(8 + text.length)
    .u8(GOAWAY)
    .u8(0)
    .u32be(0)
    .u32be(0)
    .u32be(INADEQUATE_SECURITY)
    .bytes(text)
    .finish();
}

/**
 * The reason in the first bytes that a server sent, where they are what `goAway` makes. Anything else is undefined:
 * it is HTTP/2's to read.
 */
export function readGoAway(bytes: Uint8Array): string | undefined {
  const second = bytes.subarray(FRAME_HEADER);
  if (second.length < FRAME_HEADER + 8 || bytes[3] !== SETTINGS || bytes[2] !== 0 || second[3] !== GOAWAY)
    return undefined;
  const length = (second[0]! << 16) | (second[1]! << 8) | second[2]!;
  if (length < 8 || length > 8 + MAX_REASON || second.length < FRAME_HEADER + length) return undefined;
  if (second[FRAME_HEADER + 7] !== INADEQUATE_SECURITY) return undefined;
  const reason = second.subarray(FRAME_HEADER + 8, FRAME_HEADER + length);
  // Foreign text that ends in logs: printable ASCII only.
  return Buffer.from(reason)
    .toString('latin1')
    .replaceAll(/[^ -~]/g, '?');
}
