import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { fromHex, toHex } from '@asterism/bytes/encoding';
import { ParseError } from '@asterism/errors/errors';
import { parse as parseYaml, stringify } from 'yaml';
import { clusterIdPcr, measurementsWithoutMembership } from './cluster-id.ts';
import {
  compareMeasurements,
  parseMeasurements,
  renderMeasurements,
  weakened,
  withPcr,
} from './measurements.ts';

const HEX = 'fd5de9df350e3bc4410ac06bbfe5ccdeb93f53b9ef51239f752ce69dbc600f35';
const BASE64 = '/V3p3zUOO8RBCsBrv+XM3rk/U7nvUSOfdSzmnbxgDzU=';

describe('measurements', () => {
  for (const [name, value] of Object.entries({
    'not base64': { 2: 'This is not base64' },
    '21 bytes of hex': { 2: '00'.repeat(21) },
    'one byte of base64': { 2: 'AA==' },
    '31 bytes of base64': { 2: `${'A'.repeat(41)}=` },
    'an object as expected value': { 2: { expected: {}, warnOnly: false } },
    'no expected value': { 2: { warnOnly: true } },
    'warnOnly as text': { 2: { expected: HEX, warnOnly: 'no' } },
    'an unknown key': { 2: { expected: HEX, warnonly: true } },
    'PCR 24': { 24: HEX },
    'PCR -1': { '-1': HEX },
    'PCR 01': { '01': HEX },
    nothing: {},
    'a list': [HEX],
    null: null,
  })) {
    it(`refuses ${name}`, () => assert.throws(() => parseMeasurements(value), ParseError));
  }

  it('reads the present and the older shapes, and prints the present one in order', () => {
    const read = parseMeasurements({
      11: { expected: BASE64, warnOnly: true },
      2: BASE64,
      3: { expected: HEX },
    });
    assert.deepEqual(Object.entries(renderMeasurements(read)), [
      ['2', { expected: HEX, warnOnly: false }],
      ['3', { expected: HEX, warnOnly: false }],
      ['11', { expected: HEX, warnOnly: true }],
    ]);
  });

  // key-vectors.md section 5
  for (const [hex, base64] of [
    [HEX, BASE64],
    [
      'd5a4496d21dec9a5258ddb19c6feb53bb4d3c0463fe607f2488ddf4f1006ef9e',
      '1aRJbSHeyaUljdsZxv61O7TTwEY/5gfySI3fTxAG754=',
    ],
  ] as const) {
    it(`reads ${hex.slice(0, 8)} in either encoding as the same`, () => {
      const [one] = parseMeasurements({ 2: base64 }).values();
      assert.equal(toHex(one!.expected), hex);
      assert.deepEqual(parseMeasurements({ 2: { expected: hex } }).get(2), one);
    });
  }

  it('reads what Constellation v2.6.0 released for QEMU, and prints it as it was', () => {
    const released = Object.fromEntries(
      Object.entries({
        4: 'dfd62a251a234d2eccdbb4659e4990c330f3e4a4456f7274c769ad43c174c7c4',
        8: '00'.repeat(32),
        9: 'a13d79910d9d98480c0d5c3f197d383d5d26895e350225e219bf286a7402e780',
        11: '00'.repeat(32),
        12: 'c2b1e24a8ff734ea9546622da8ba438c6799be6b6cb4e6593d9411e9ea084c0c',
        13: '00'.repeat(32),
        15: '00'.repeat(32),
      }).map(([index, expected]) => [index, { expected, warnOnly: false }]),
    );
    assert.deepEqual(renderMeasurements(parseMeasurements(released)), released);
  });

  it('reads YAML, with indexes as numbers, and what it prints', () => {
    for (const text of [
      `4:\n    expected: "${HEX}"\n    warnOnly: true\n11:\n    expected: ${BASE64}\n`,
      `4: {expected: "${BASE64}", warnOnly: true}\n11: "${HEX}"\n`,
    ]) {
      const read = parseMeasurements(parseYaml(text));
      assert.deepEqual(
        [...read].map(([index, { warnOnly }]) => [index, warnOnly]),
        [
          [4, true],
          [11, false],
        ],
      );
      const printed = stringify(renderMeasurements(read), { indent: 4 });
      assert.deepEqual(parseMeasurements(parseYaml(printed)), read);
      assert.match(printed, /^"?4"?:\n {4}expected: .*\n {4}warnOnly: true\n"?11"?:\n/);
    }
  });

  it('counts a PCR that was not quoted as different', () => {
    const [check] = compareMeasurements(parseMeasurements({ 15: HEX }), new Map());
    assert.equal(check?.outcome, 'failed');
  });

  it('knows which enforced PCRs a change would give up', () => {
    const before = parseMeasurements({ 4: HEX, 9: HEX, 11: HEX, 14: { expected: HEX, warnOnly: true } });
    const after = parseMeasurements({
      4: HEX,
      9: { expected: HEX, warnOnly: true },
      14: { expected: HEX, warnOnly: true },
    });
    assert.deepEqual(weakened(before, after), [9, 11]);
  });

  it('with another PCR 15 enforce it, whatever was said of it before', async () => {
    const before = parseMeasurements({ 4: HEX, 15: { expected: HEX, warnOnly: true } });
    const pcr = await clusterIdPcr(fromHex('02'));
    const members = withPcr(before, 15, pcr);
    assert.deepEqual(members.get(15), { expected: pcr, warnOnly: false });
    assert.deepEqual(members.get(4), before.get(4));
    assert.equal(measurementsWithoutMembership(before).has(15), false);
    assert.equal(before.get(15)?.warnOnly, true);
  });

  it('cannot be compared where there are none', () => {
    assert.throws(() => compareMeasurements(new Map(), new Map([[4, fromHex(HEX)]])), ParseError);
  });

  for (const [clusterId, pcr] of [
    [
      '128c164378fe8767f998fbdfe4b4d6463ec5ae1b664ea5999bc27417607ae9b6',
      '23400370357e846478cce7cc0c76cdfe4da077cc57b36dee0f665ede2c8b3f2f',
    ],
    ['11'.repeat(32), '1e60f81404c2f085dc1bb30642c0c23cd3f77bd32424888abb3fc0f9908f1adf'],
    [
      'e7fd5a0e36fb56d69807aa36e68aee24438c1bf8766780b6106150f35b7aacba',
      'f75516d57d358d6acd9c5e6e5c74b910ca7da9ddbc7935d0707c9b71656b968d',
    ],
    ['02', '07cd877f1286496295abdf54bcec329c4b3df21412c66b4b9b30e36ec204d91d'],
    ['00010203', '40e460b124384dce5c8258277fcb11622ea59a4d4b9ac6c83a3cacba85a71de4'],
  ] as const) {
    it(`PCR 15 of cluster id ${clusterId.slice(0, 8)}…`, async () =>
      assert.equal(toHex(await clusterIdPcr(fromHex(clusterId))), pcr));
  }
});
