import assert from 'node:assert/strict';
import { Writer } from '@asterism/bytes/writer';
import { parseEventLog, replay } from './event-log.ts';
import { writeEventLog } from './write.ts';

export const name = 'eventlog/event-log';

const legacy = new Writer();
for (const pcr of [0, 4, 7]) {
  legacy
    .u32le(pcr)
    .u32le(0x0d)
    .bytes(new Uint8Array(20).fill(pcr))
    .u32le(3)
    .bytes(Uint8Array.of(1, 2, 3));
}

export const seeds = [
  writeEventLog([
    { pcr: 4, digest: new Uint8Array(32).fill(1), description: 'boot stage' },
    { pcr: 9, digest: new Uint8Array(32).fill(2), description: 'initrd' },
  ]),
  legacy.finish(),
];

export async function run(input: Uint8Array): Promise<void> {
  const log = parseEventLog(input);
  for (const bank of log.banks) {
    for (const [pcr, value] of await replay(log, bank)) {
      assert.ok(pcr >= 0 && pcr < 24 && value.length >= 20);
    }
  }
}
