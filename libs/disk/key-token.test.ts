import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { toUtf8 } from '@asterism/bytes/encoding';
import { AsterismError } from '@asterism/errors/errors';
import fc from 'fast-check';
import { diskDataKeyId, parseDiskKeyName, renderDiskKeyName } from './key-name.ts';
import { type DiskKeyToken, MAX_KEY_TOKEN_BYTES, parseKeyToken, renderKeyToken } from './key-token.ts';

const number = (min: number) => fc.integer({ min, max: 999_999_999 });
const name = fc.tuple(number(1), number(0)).map(([generation, change]) => `${generation}.${change}`);
const envelope = fc.option(fc.uint8Array({ minLength: 1, maxLength: 1500 }), { nil: undefined });
const key = fc.record({ name, envelope });
const token = fc.record({
  keys: fc.uniqueArray(key, { minLength: 1, maxLength: 2, selector: (one) => one.name }),
  measurementSecret: envelope,
});
const plain = (of: DiskKeyToken) => JSON.parse(new TextDecoder().decode(renderKeyToken(of)));

describe('key token', () => {
  it('what is printed is read as the same', () => {
    fc.assert(
      fc.property(token, (made) => {
        const read = parseKeyToken(renderKeyToken(made));
        assert.deepEqual(renderKeyToken(read), renderKeyToken(made));
        assert.deepEqual(
          read.keys.map((one) => [one.name, one.envelope]),
          made.keys.map((one) => [one.name, one.envelope]),
        );
        assert.deepEqual(read.measurementSecret, made.measurementSecret);
      }),
    );
  });

  it('says with cluster keys only what they are called', () => {
    assert.deepEqual(plain({ keys: [{ name: '1.0' }] }), {
      type: 'asterism-disk-key',
      keyslots: [],
      keys: [{ name: '1.0' }],
    });
  });

  it('any bytes are read as a token or refused with a class of ours', () => {
    const good = renderKeyToken({ keys: [{ name: '1.0', envelope: toUtf8('{}') }] });
    const damaged = fc
      .tuple(fc.nat({ max: good.length - 1 }), fc.nat({ max: 255 }))
      .map(([at, byte]) => good.with(at, byte));
    fc.assert(
      fc.property(fc.oneof(fc.uint8Array(), damaged), (bytes) => {
        try {
          assert.deepEqual(renderKeyToken(parseKeyToken(bytes)), bytes);
        } catch (error) {
          assert.ok(error instanceof AsterismError, String(error));
        }
      }),
    );
  });

  const base = '"type":"asterism-disk-key","keyslots":[]';
  const refused: Record<string, string> = {
    'no JSON': '{',
    'an array': '[]',
    'another type': '{"type":"systemd-tpm2","keyslots":[],"keys":[{"name":"1.0"}]}',
    'a key slot': '{"type":"asterism-disk-key","keyslots":["0"],"keys":[{"name":"1.0"}]}',
    'no key': `{${base},"keys":[]}`,
    'three keys': `{${base},"keys":[{"name":"1.0"},{"name":"1.1"},{"name":"1.2"}]}`,
    'one key twice': `{${base},"keys":[{"name":"1.0"},{"name":"1.0"}]}`,
    'generation 0': `{${base},"keys":[{"name":"0.0"}]}`,
    'a leading zero': `{${base},"keys":[{"name":"1.01"}]}`,
    'a name that is longer': `{${base},"keys":[{"name":"1.0\\n"}]}`,
    'an unknown field': `{${base},"keys":[{"name":"1.0","path":"/"}]}`,
    'an unknown field outside': `{${base},"keys":[{"name":"1.0"}],"x":1}`,
    'an empty envelope': `{${base},"keys":[{"name":"1.0","envelope":""}]}`,
    'an envelope that is no base64': `{${base},"keys":[{"name":"1.0","envelope":"a=bc"}]}`,
    'an envelope of another form': `{${base},"keys":[{"name":"1.0","envelope":"ab=="}]}`,
    'a name twice': `{${base},"keys":[{"name":"1.0","name":"1.1"}]}`,
    'white space': `{${base}, "keys":[{"name":"1.0"}]}`,
    'another order': `{"keyslots":[],"type":"asterism-disk-key","keys":[{"name":"1.0"}]}`,
    'an escape': `{${base},"keys":[{"name":"1\\u002e0"}]}`,
  };
  for (const [what, text] of Object.entries(refused))
    it(`refuses ${what}`, () => assert.throws(() => parseKeyToken(toUtf8(text)), { code: 'ERR_KEY_TOKEN' }));

  it('refuses one that is too large, read or made', () => {
    const large = { keys: [{ name: '1.0', envelope: new Uint8Array(MAX_KEY_TOKEN_BYTES) }] };
    assert.throws(() => renderKeyToken(large), { code: 'ERR_KEY_TOKEN' });
    assert.throws(() => parseKeyToken(new Uint8Array(MAX_KEY_TOKEN_BYTES + 1).fill(0x20)), {
      code: 'ERR_KEY_TOKEN',
    });
  });
});

describe('name of a disk key', () => {
  it('is read and printed as the same', () => {
    fc.assert(fc.property(name, (text) => assert.equal(renderDiskKeyName(parseDiskKeyName(text)), text)));
  });

  it('is nothing else', () => {
    for (const text of [
      '',
      '1',
      '1.',
      '.1',
      '0.1',
      '01.0',
      '1.00',
      '-1.0',
      '1.0.0',
      '1.0 ',
      '1000000000.0',
      '1e3.0',
    ])
      assert.throws(() => parseDiskKeyName(text), { code: 'ERR_DISK_KEY_NAME' }, text);
    assert.throws(() => renderDiskKeyName({ generation: 1, change: 1e9 }), { code: 'ERR_DISK_KEY_NAME' });
  });

  it('gives the id of its data key: the first of a disk is called by the UUID alone', () => {
    const uuid = '0a1b2c3d-0000-4000-8000-0123456789ab';
    assert.equal(diskDataKeyId(uuid, { generation: 3, change: 0 }), uuid);
    assert.equal(diskDataKeyId(uuid, { generation: 1, change: 2 }), `${uuid}.2`);
  });
});
