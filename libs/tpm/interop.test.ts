import assert from 'node:assert/strict';
import { execFile, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import { describe, it } from 'node:test';
import { promisify } from 'node:util';
import { concat } from '@asterism/bytes/bytes';
import { toBase64, toHex } from '@asterism/bytes/encoding';
import { buildGoPeer } from '@asterism/testkit/go-peer';
import { startSwtpm } from '@asterism/testkit/swtpm';
import { temporaryFolder } from '@asterism/testkit/temporary-folder';
import { provideAk } from './ak.ts';
import { AK_HANDLE, Alg } from './constants.ts';
import { parsePublicArea, parseQuoteAttest, parseSignature } from './structures.ts';
import { withTpm } from './with-tpm.ts';

const run = promisify(execFile);
const extraData = Uint8Array.from({ length: 32 }, (_, i) => i);

const go = await buildGoPeer('tpm-peer');

describe('go-tpm reads what we read', () => {
  for (const type of ['ecc-p256', 'rsa-2048'] as const) {
    it(type, { skip: 'skip' in go && go.skip }, async () => {
      if ('skip' in go) return;
      await using swtpm = await startSwtpm();
      const pcrs = [0, 7, 15, 23];
      const { area, attest, signature } = await withTpm(swtpm.address, async (tpm) => ({
        area: await provideAk(tpm, type),
        ...(await tpm.quote(AK_HANDLE, extraData, [{ hash: Alg.SHA256, pcrs }])),
      }));
      const input = { Attest: toBase64(attest), Signature: toBase64(signature), Public: toBase64(area) };
      const { stdout, stderr, status } = spawnSync(go.program, {
        input: JSON.stringify(input),
        encoding: 'utf8',
        timeout: 15_000,
      });
      assert.equal(status, 0, stderr);
      const quote = parseQuoteAttest(attest);
      const name = concat(Uint8Array.of(0, 11), createHash('sha256').update(area).digest());
      assert.deepEqual(JSON.parse(stdout), {
        name: toHex(name),
        qualifiedSigner: toHex(quote.qualifiedSigner),
        extraData: toHex(extraData),
        pcrDigest: toHex(quote.pcrDigest),
        selections: [{ hash: 11, pcrs }],
        clock: String(quote.clock),
        signatureHolds: true,
        samePublic: true,
      });
    });
  }
});

describe('tpm2-tools', () => {
  for (const [algorithm, scheme] of [
    ['ecc256:ecdsa-sha256:null', 'ecdsa'],
    ['rsa2048:rsassa-sha256:null', 'rsassa'],
  ] as const) {
    it(`make quotes that we read (${scheme})`, async () => {
      await using swtpm = await startSwtpm('sha1,sha256,sha384');
      await using folder = await temporaryFolder();
      const env = { ...process.env, TPM2TOOLS_TCTI: swtpm.tcti };
      const tool = (name: string, ...args: string[]) => run(name, args, { env, timeout: 20_000 });
      const read = async (name: string) => new Uint8Array(await readFile(folder.file(name)));
      const attributes = 'fixedtpm|fixedparent|sensitivedataorigin|userwithauth|restricted|sign|noda';
      await tool('tpm2_createprimary', '-C', 'o', '-G', algorithm, '-a', attributes, '-c', folder.file('ak'));
      await tool('tpm2_flushcontext', '-t');
      await tool('tpm2_readpublic', '-c', folder.file('ak'), '-f', 'tpmt', '-o', folder.file('public'));
      await tool('tpm2_flushcontext', '-t');
      const banks = 'sha1:0,1+sha256:4,15+sha384:23';
      const out = ['-m', folder.file('attest'), '-s', folder.file('signature')];
      await tool('tpm2_quote', '-c', folder.file('ak'), '-l', banks, '-q', toHex(extraData), ...out);
      const quote = parseQuoteAttest(await read('attest'));
      assert.deepEqual(quote.extraData, extraData);
      assert.deepEqual(quote.selections, [
        { hash: Alg.SHA1, pcrs: [0, 1] },
        { hash: Alg.SHA256, pcrs: [4, 15] },
        { hash: Alg.SHA384, pcrs: [23] },
      ]);
      const area = parsePublicArea(await read('public'));
      assert.equal(area.key.type, scheme === 'ecdsa' ? 'ecc' : 'rsa');
      assert.equal(parseSignature(await read('signature')).scheme, scheme);
    });
  }

  it('find no transient object or session of ours after many uses', async () => {
    await using swtpm = await startSwtpm();
    const env = { ...process.env, TPM2TOOLS_TCTI: swtpm.tcti };
    for (let i = 0; i < 5; i++) {
      await withTpm(swtpm.address, async (tpm) => {
        await provideAk(tpm, 'ecc-p256');
        await tpm.quote(AK_HANDLE, extraData, [{ hash: Alg.SHA256, pcrs: [0] }]);
      });
    }
    for (const kind of ['transient', 'loaded-session', 'saved-session']) {
      const { stdout } = await run('tpm2_getcap', [`handles-${kind}`], { env });
      assert.equal(stdout.trim(), '', kind);
    }
    const { stdout } = await run('tpm2_getcap', ['handles-persistent'], { env });
    assert.match(stdout, /0x81008F01/i);
  });

  it('see the NV index that we read, and we what they wrote', async () => {
    await using swtpm = await startSwtpm();
    await using folder = await temporaryFolder();
    const env = { ...process.env, TPM2TOOLS_TCTI: swtpm.tcti };
    const content = new Uint8Array(1700).map((_, i) => i * 13);
    await writeFile(folder.file('nv'), content);
    const attributes = 'authread|authwrite|ownerread|ownerwrite';
    await run('tpm2_nvdefine', ['0x1500020', '-s', '1700', '-a', attributes], { env });
    await run('tpm2_nvwrite', ['0x1500020', '-i', folder.file('nv')], { env });
    assert.deepEqual(await withTpm(swtpm.address, (tpm) => tpm.readNv(0x1500020)), content);
  });
});

describe('a TPM that loses power', () => {
  it('still quotes after twelve cuts without a shutdown: the key is exempt from the lockout', async () => {
    await using swtpm = await startSwtpm();
    const first = await withTpm(swtpm.address, (tpm) => provideAk(tpm, 'ecc-p256'));
    for (let i = 0; i < 12; i++) {
      await swtpm.powerCycle();
      await withTpm(swtpm.address, async (tpm) => {
        assert.deepEqual(await provideAk(tpm, 'ecc-p256'), first);
        await tpm.quote(AK_HANDLE, extraData, [{ hash: Alg.SHA256, pcrs: [0] }]);
      });
    }
  });
});
