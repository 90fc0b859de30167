import { createHash, randomBytes } from 'node:crypto';

/** The metadata that our format writes, as an object to be spoilt by a test. */
export function goodMetadata(): ReturnType<typeof build> {
  return build();
}

function build() {
  const salt = Buffer.alloc(32, 7).toString('base64');
  return {
    keyslots: {
      '0': {
        type: 'luks2',
        key_size: 64,
        af: { type: 'luks1', stripes: 4000, hash: 'sha256' },
        area: { type: 'raw', offset: '32768', size: '258048', encryption: 'aes-xts-plain64', key_size: 64 },
        kdf: { type: 'pbkdf2', hash: 'sha256', iterations: 1000, salt },
      },
    },
    tokens: { '0': { type: 'asterism-state-disk', keyslots: [], diskIsInitialized: true } },
    segments: {
      '0': {
        type: 'crypt',
        offset: '16777216',
        size: 'dynamic',
        iv_tweak: '0',
        encryption: 'aes-xts-plain64',
        sector_size: 4096,
      },
    },
    digests: {
      '0': {
        type: 'pbkdf2',
        keyslots: ['0'],
        segments: ['0'],
        hash: 'sha256',
        iterations: 1000,
        salt,
        digest: salt,
      },
    },
    config: { json_size: '12288', keyslots_size: '16744448' },
  };
}

export interface HeaderOptions {
  readonly sequence?: bigint;
  readonly uuid?: string;
  readonly secondary?: boolean;
}

/** One checksummed copy of a LUKS2 header (16 KiB) around any JSON text. */
export function headerCopy(json: string, options: HeaderOptions = {}): Uint8Array {
  const area = Buffer.alloc(0x4000);
  area.write(options.secondary ? 'SKUL' : 'LUKS', 0, 'latin1');
  area.writeUInt16BE(0xbabe, 4);
  area.writeUInt16BE(2, 6);
  area.writeBigUInt64BE(0x4000n, 8);
  area.writeBigUInt64BE(options.sequence ?? 3n, 16);
  area.write('sha256', 72, 'latin1');
  randomBytes(64).copy(area, 104);
  area.write(options.uuid ?? '0a1b2c3d-0000-4000-8000-0123456789ab', 168, 'latin1');
  area.writeBigUInt64BE(options.secondary ? 0x4000n : 0n, 256);
  area.write(json, 4096, 'latin1');
  createHash('sha256').update(area).digest().copy(area, 448);
  return area;
}

/** Both copies around the same JSON, without the key slots behind them. */
export function headerArea(json: string, options: HeaderOptions = {}): Uint8Array {
  return Buffer.concat([headerCopy(json, options), headerCopy(json, { ...options, secondary: true })]);
}
