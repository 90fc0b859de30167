import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { promisify } from 'node:util';
import { fromHex, toHex } from '@asterism/bytes/encoding';
import { ParseError } from '@asterism/errors/errors';
import { temporaryFolder } from '@asterism/testkit/temporary-folder';
import { parseEventLog, replay, SHA256 } from './event-log.ts';
import { writeEventLog } from './write.ts';

const VECTORS = join(import.meta.dirname, '../../../shared/vectors/go-tpm-tools');
const digestOf = (text: string) => new Uint8Array(createHash('sha256').update(text).digest());
const stages = [
  { pcr: 4, digest: digestOf('a'), description: 'boot stage' },
  { pcr: 9, digest: digestOf('b'), description: 'initrd' },
  { pcr: 9, digest: digestOf('c'), description: 'more' },
];

describe('event log', () => {
  it('replays what it wrote to the values of the extend rule', async () => {
    const pcrs = await replay(parseEventLog(writeEventLog(stages)), SHA256);
    const extend = (value: Uint8Array, digest: Uint8Array) =>
      new Uint8Array(createHash('sha256').update(value).update(digest).digest());
    const zero = new Uint8Array(32);
    assert.deepEqual(pcrs.get(4), extend(zero, digestOf('a')));
    assert.deepEqual(pcrs.get(9), extend(extend(zero, digestOf('b')), digestOf('c')));
    assert.equal(pcrs.size, 2);
  });

  // key-vectors.md section 2
  for (const [what, digest, pcr] of [
    [
      'Constellation',
      digestOf('Constellation'),
      'f2630ee674c310b3bd7a75d3d632ac8e625c309d8a5367063f06e3c32a8411a1',
    ],
    [
      'a separator',
      fromHex('df3f619804a92fdb4057192dc43dd748ea778adc52bc498ce80524c014b81119'),
      '3d458cfe55cc03ea1f443f1562beec8df51c75e14a9fcf9a7234a13f198e7969',
    ],
  ] as const) {
    it(`leads from zero by ${what} to the known value`, async () => {
      const pcrs = await replay(
        parseEventLog(writeEventLog([{ pcr: 4, digest, description: what }])),
        SHA256,
      );
      assert.equal(toHex(pcrs.get(4)!), pcr);
    });
  }

  it('writes logs that tpm2_eventlog reads', async () => {
    await using folder = await temporaryFolder();
    const file = folder.file('log');
    await writeFile(file, writeEventLog(stages));
    const { stdout } = await promisify(execFile)('tpm2_eventlog', [file]);
    const own = await replay(parseEventLog(readFileSync(file)), SHA256);
    for (const value of own.values()) assert.match(stdout.toLowerCase(), new RegExp(toHex(value)));
    assert.equal(own.size, 2);
  });

  it('refuses every truncation of a log', () => {
    const bytes = writeEventLog(stages);
    let accepted = 0;
    for (let length = 0; length < bytes.length; length++) {
      try {
        // A cut exactly between two events leaves a shorter log, which is well-formed.
        const log = parseEventLog(bytes.subarray(0, length));
        assert.ok(log.events.length < 4);
        accepted++;
      } catch (error) {
        assert.ok(error instanceof ParseError, `${length}: ${String(error)}`);
      }
    }
    assert.equal(accepted, 3);
  });

  it('refuses unknown banks, doubled digests, absurd sizes and counts', () => {
    const bytes = writeEventLog(stages);
    const at = (offset: number, value: number) => {
      const copy = bytes.slice();
      new DataView(copy.buffer).setUint32(offset, value, true);
      return () => parseEventLog(copy);
    };
    assert.throws(at(28, 0xffffffff), ParseError);
    assert.throws(at(56, 0), ParseError);
    assert.throws(at(56, 0xffff), ParseError);
    assert.throws(at(65, 24), ParseError);
    assert.throws(() => parseEventLog(new Uint8Array((1 << 20) + 1)), ParseError);
  });
});

describe('event logs of real machines', () => {
  const expected = join(VECTORS, 'expected-eventlog-pcrs.json');
  if (!existsSync(expected)) {
    it('replay to what was read there', { skip: `NOT TESTED: ${VECTORS} is not here` }, () => {});
    return;
  }
  for (const file of readdirSync(join(VECTORS, 'eventlogs'))) {
    it(`parses and replays ${file}`, async () => {
      const log = parseEventLog(readFileSync(join(VECTORS, 'eventlogs', file)));
      assert.ok(log.events.length > 10);
      for (const bank of log.banks) assert.ok((await replay(log, bank)).size > 3);
    });
  }
  it('gives the PCR values that were read on those machines', async () => {
    const banks: Record<string, number> = { sha1: 0x04, sha256: 0x0b, sha384: 0x0c };
    const machines: Record<string, { pcrs: Record<string, Record<string, string>> }> = JSON.parse(
      readFileSync(expected, 'utf8'),
    );
    let compared = 0;
    for (const [file, { pcrs }] of Object.entries(machines)) {
      const log = parseEventLog(readFileSync(join(VECTORS, file)));
      for (const [bank, values] of Object.entries(pcrs)) {
        const replayed = await replay(log, banks[bank]!);
        for (const [index, value] of Object.entries(values)) {
          const got = replayed.get(Number(index));
          // A PCR without events has the value that it had at the start.
          const zeros = '0'.repeat(value.length);
          assert.equal(got === undefined ? zeros : toHex(got), value, `${file} ${bank} PCR ${index}`);
          compared++;
        }
      }
    }
    assert.equal(compared, 170);
  });
});
