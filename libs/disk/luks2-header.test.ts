import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { goodMetadata, headerArea, headerCopy } from './luks2-header.fixture.ts';
import { validateHeaderArea } from './luks2-header.ts';

// biome-ignore lint/suspicious/noExplicitAny: tests spoil the value in ways that its type forbids
type Loose = any;

const keyToken = { type: 'asterism-disk-key', keyslots: [], keys: [{ name: '1.0' }] };

function spoilt(change: (metadata: Loose) => void): Uint8Array {
  const metadata = goodMetadata();
  change(metadata);
  return headerArea(JSON.stringify(metadata));
}

describe('LUKS2 header', () => {
  it('accepts what our format writes', async () => {
    const header = await validateHeaderArea(
      spoilt(() => {}),
      false,
    );
    assert.deepEqual(header.keyslots, [0]);
    assert.equal(header.initialized, true);
    assert.equal(header.keyToken, undefined);
  });

  it('accepts a key token beside the mark', async () => {
    const envelope = new TextEncoder().encode('{}');
    const keys = [{ name: '1.0', envelope: 'e30=' }, { name: '2.0' }];
    const header = await validateHeaderArea(
      spoilt((m) => {
        m.tokens['1'] = { ...keyToken, keys, measurementSecret: 'e30=' };
      }),
      false,
    );
    assert.deepEqual(header.keyToken, {
      keys: [{ name: '1.0', envelope }, { name: '2.0' }],
      measurementSecret: envelope,
    });
  });

  const refused: Record<string, (metadata: Loose) => void> = {
    'null cipher of the segment': (m) => {
      m.segments['0'].encryption = 'cipher_null-ecb';
    },
    'null cipher of the key slot': (m) => {
      m.keyslots['0'].area.encryption = 'cipher_null-ecb';
    },
    'weaker key slot key': (m) => {
      m.keyslots['0'].area.key_size = 32;
    },
    'linear segment': (m) => {
      m.segments['0'] = { type: 'linear', offset: '16777216', size: 'dynamic' };
    },
    'second segment': (m) => {
      m.segments['1'] = m.segments['0'];
    },
    'segment over the header': (m) => {
      m.segments['0'].offset = '0';
    },
    'fixed segment size': (m) => {
      m.segments['0'].size = '4096';
    },
    'shifted tweak': (m) => {
      m.segments['0'].iv_tweak = '8';
    },
    'segment flags': (m) => {
      m.segments['0'].flags = ['backup-final'];
    },
    'integrity that is not asked for': (m) => {
      m.segments['0'].integrity = {
        type: 'hmac(sha256)',
        journal_encryption: 'none',
        journal_integrity: 'none',
      };
    },
    'no-op integrity': (m) => {
      m.segments['0'].integrity = { type: 'none', journal_encryption: 'none', journal_integrity: 'none' };
    },
    're-encryption slot': (m) => {
      m.keyslots['1'] = { type: 'reencrypt', mode: 'reencrypt' };
    },
    requirements: (m) => {
      m.config.requirements = { mandatory: ['online-reencrypt'] };
    },
    'activation flags': (m) => {
      m.config.flags = ['allow-discards'];
    },
    'argon2 slot': (m) => {
      m.keyslots['0'].kdf = {
        type: 'argon2id',
        time: 4,
        memory: 4194304,
        cpus: 4,
        salt: m.keyslots['0'].kdf.salt,
      };
    },
    'stalling iteration count': (m) => {
      m.keyslots['0'].kdf.iterations = 4_000_000_000;
    },
    'slot without digest': (m) => {
      m.keyslots['1'] = { ...m.keyslots['0'], area: { ...m.keyslots['0'].area, offset: '290816' } };
    },
    'digest without slot': (m) => {
      m.digests['0'].keyslots = ['0', '1'];
    },
    'no slot': (m) => {
      m.keyslots = {};
      m.digests['0'].keyslots = [];
    },
    'overlapping slots': (m) => {
      m.keyslots['1'] = m.keyslots['0'];
      m.digests['0'].keyslots = ['0', '1'];
    },
    'slot over the header': (m) => {
      m.keyslots['0'].area.offset = '0';
    },
    'slot in the data': (m) => {
      m.keyslots['0'].area.offset = '16777216';
    },
    'second digest': (m) => {
      m.digests['1'] = m.digests['0'];
    },
    'foreign token': (m) => {
      m.tokens['0'] = { type: 'systemd-tpm2', keyslots: ['0'] };
    },
    'second token': (m) => {
      m.tokens['1'] = m.tokens['0'];
    },
    'key token without a mark': (m) => {
      m.tokens = { '1': keyToken };
    },
    'key token in another place': (m) => {
      m.tokens['2'] = keyToken;
    },
    'second key token': (m) => {
      m.tokens['1'] = keyToken;
      m.tokens['2'] = keyToken;
    },
    'key token of another type': (m) => {
      m.tokens['1'] = { ...keyToken, type: 'luks2-keyring' };
    },
    'key token bound to a slot': (m) => {
      m.tokens['1'] = { ...keyToken, keyslots: ['0'] };
    },
    'key token with an unknown field': (m) => {
      m.tokens['1'] = { ...keyToken, kmsUri: 'kms://elsewhere' };
    },
    'key token with an unknown field of a key': (m) => {
      m.tokens['1'] = { ...keyToken, keys: [{ name: '1.0', keyId: 'of another' }] };
    },
    'key token with three keys': (m) => {
      m.tokens['1'] = { ...keyToken, keys: ['1.0', '1.1', '1.2'].map((name) => ({ name })) };
    },
    'key token with one key twice': (m) => {
      m.tokens['1'] = { ...keyToken, keys: [{ name: '1.0' }, { name: '1.0' }] };
    },
    'key token with a name that is a path': (m) => {
      m.tokens['1'] = { ...keyToken, keys: [{ name: '../1.0' }] };
    },
    'key token with an envelope of another form': (m) => {
      m.tokens['1'] = { ...keyToken, measurementSecret: 'ab==' };
    },
    'key token that is too large': (m) => {
      m.tokens['1'] = { ...keyToken, measurementSecret: 'A'.repeat(8192) };
    },
    'token bound to a slot': (m) => {
      m.tokens['0'].keyslots = ['0'];
    },
    'mark that is no boolean': (m) => {
      m.tokens['0'].diskIsInitialized = 'true';
    },
    'unknown section': (m) => {
      m.extra = {};
    },
    'wrong JSON size': (m) => {
      m.config.json_size = '16384';
    },
    'slots over the data': (m) => {
      m.config.keyslots_size = '33554432';
    },
  };
  for (const [what, change] of Object.entries(refused)) {
    it(`refuses ${what}`, async () => {
      await assert.rejects(validateHeaderArea(spoilt(change), false), { code: 'ERR_DISK_HEADER' });
    });
  }

  it('refuses a missing integrity that must be there, and the key size that goes without', async () => {
    await assert.rejects(
      validateHeaderArea(
        spoilt(() => {}),
        true,
      ),
      { code: 'ERR_DISK_HEADER' },
    );
    const integrity = { type: 'hmac(sha256)', journal_encryption: 'none', journal_integrity: 'none' };
    await assert.rejects(
      validateHeaderArea(
        spoilt((m) => {
          m.segments['0'].integrity = integrity;
        }),
        true,
      ),
      { code: 'ERR_DISK_HEADER', message: /key slot 0 holds 64/ },
    );
    const header = await validateHeaderArea(
      spoilt((m) => {
        m.segments['0'].integrity = integrity;
        m.keyslots['0'].key_size = 96;
      }),
      true,
    );
    assert.equal(header.integrity, true);
  });

  it('refuses duplicate keys', async () => {
    const json = JSON.stringify(goodMetadata()).replace(
      '"encryption":"aes-xts-plain64","sector_size"',
      '"encryption":"cipher_null-ecb","encryption":"aes-xts-plain64","sector_size"',
    );
    assert.match(json, /cipher_null/);
    await assert.rejects(validateHeaderArea(headerArea(json), false), { code: 'ERR_DISK_HEADER' });
  });

  it('refuses bytes hidden after the JSON', async () => {
    const json = JSON.stringify(goodMetadata());
    await assert.rejects(validateHeaderArea(headerArea(`${json}\0{"segments":{}}`), false), {
      code: 'ERR_DISK_HEADER',
    });
  });

  it('judges the secondary header too', async () => {
    const good = JSON.stringify(goodMetadata());
    const bad = good.replaceAll('aes-xts-plain64', 'cipher_null-ecb');
    const area = (second: Uint8Array): Uint8Array => Buffer.concat([headerCopy(good), second]);
    const options = { secondary: true };
    await assert.rejects(validateHeaderArea(area(headerCopy(bad, options)), false), {
      code: 'ERR_DISK_HEADER',
    });
    await assert.rejects(validateHeaderArea(area(headerCopy(good, { ...options, sequence: 4n })), false), {
      message: /newer/,
    });
    await assert.rejects(
      validateHeaderArea(
        area(headerCopy(good, { ...options, uuid: '0a1b2c3d-0000-4000-8000-0123456789ac' })),
        false,
      ),
      { message: /different UUIDs/ },
    );
    const old = await validateHeaderArea(area(headerCopy(good, { ...options, sequence: 2n })), false);
    assert.equal(old.sequence, 3n);
  });

  it('takes a damaged secondary header as absent, a damaged primary one as no header', async () => {
    const area = Buffer.from(spoilt(() => {}));
    const torn = Buffer.from(area);
    torn[0x4000 + 5000]! ^= 1;
    assert.equal((await validateHeaderArea(torn, false)).initialized, true);
    area[5000]! ^= 1;
    await assert.rejects(validateHeaderArea(area, false), { code: 'ERR_PARSE' });
  });

  it('refuses every truncation', async () => {
    const area = spoilt(() => {});
    for (const length of [0, 5, 6, 100, 4095, 4096, 8192, 0x3fff]) {
      await assert.rejects(validateHeaderArea(area.subarray(0, length), false), { code: 'ERR_PARSE' });
    }
  });
});
