import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { createHash, createPublicKey, verify } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { after, before, describe, it } from 'node:test';
import { promisify } from 'node:util';
import { concat } from '@asterism/bytes/bytes';
import { toBase64Url, toHex } from '@asterism/bytes/encoding';
import { type Swtpm, startSwtpm } from '@asterism/testkit/swtpm';
import { temporaryFolder } from '@asterism/testkit/temporary-folder';
import { provideAk } from './ak.ts';
import { AK_HANDLE, Alg } from './constants.ts';
import { responseCodeName, TpmError } from './response-code.ts';
import { encodePublicArea, parsePublicArea, parseQuoteAttest, parseSignature } from './structures.ts';
import { withTpm } from './with-tpm.ts';

const run = promisify(execFile);
const sha256 = (...parts: Uint8Array[]) =>
  new Uint8Array(
    createHash('sha256')
      .update(concat(...parts))
      .digest(),
  );

describe('TPM client against swtpm', () => {
  let swtpm: Swtpm;
  before(async () => {
    swtpm = await startSwtpm('sha1,sha256');
  });
  after(() => swtpm[Symbol.asyncDispose]());

  it('reads and extends PCRs as the specification says', async () => {
    const digest = sha256(new Uint8Array([1, 2, 3]));
    const [before_, after_] = await withTpm(swtpm.address, async (tpm) => {
      const first = await tpm.readPcrs([0, 4, 9, 11, 12, 13, 14, 15, 16, 23]);
      await tpm.extendPcr(9, digest);
      return [first, await tpm.readPcrs([9])] as const;
    });
    assert.equal(before_.size, 10);
    assert.deepEqual(after_.get(9), sha256(before_.get(9)!, digest));
  });

  it('agrees with tpm2_pcrread', async () => {
    const mine = await withTpm(swtpm.address, (tpm) => tpm.readPcrs([9, 15]));
    const { stdout } = await run('tpm2_pcrread', ['sha256:9,15'], {
      env: { ...process.env, TPM2TOOLS_TCTI: swtpm.tcti },
    });
    for (const value of mine.values()) assert.match(stdout, new RegExp(toHex(value), 'i'));
  });

  it('extends every bank by PCR_Event', async () => {
    await withTpm(swtpm.address, async (tpm) => {
      assert.deepEqual((await tpm.pcrBanks()).sort(), [Alg.SHA1, Alg.SHA256].sort());
      await tpm.eventPcr(15, new Uint8Array([2]));
      const value = (await tpm.readPcrs([15])).get(15)!;
      assert.equal(toHex(value), '07cd877f1286496295abdf54bcec329c4b3df21412c66b4b9b30e36ec204d91d');
      assert.equal((await tpm.readPcrs([15], Alg.SHA1)).get(15)!.length, 20);
    });
  });

  for (const type of ['ecc-p256', 'rsa-2048'] as const) {
    it(`quotes with a ${type} key that tpm2_checkquote accepts`, async () => {
      await using own = await startSwtpm();
      const extraData = sha256(new Uint8Array([7]));
      const { area, quote } = await withTpm(own.address, async (tpm) => {
        const area = await provideAk(tpm, type);
        return {
          area,
          quote: await tpm.quote(AK_HANDLE, extraData, [{ hash: Alg.SHA256, pcrs: [0, 4, 15] }]),
        };
      });
      assert.deepEqual(encodePublicArea(parsePublicArea(area)), area);
      const attest = parseQuoteAttest(quote.attest);
      assert.deepEqual(attest.extraData, extraData);
      assert.deepEqual(attest.selections, [{ hash: Alg.SHA256, pcrs: [0, 4, 15] }]);
      assert.deepEqual(attest.pcrDigest, sha256(new Uint8Array(96)));
      const { key } = parsePublicArea(area);
      const signature = parseSignature(quote.signature);
      const jwk =
        key.type === 'ecc'
          ? {
              kty: 'EC',
              crv: 'P-256',
              x: toBase64Url(key.x).replaceAll('=', ''),
              y: toBase64Url(key.y).replaceAll('=', ''),
            }
          : { kty: 'RSA', n: toBase64Url(key.modulus).replaceAll('=', ''), e: 'AQAB' };
      const publicKey = createPublicKey({ key: jwk, format: 'jwk' });
      const raw = signature.scheme === 'ecdsa' ? concat(signature.r, signature.s) : signature.signature;
      assert.ok(verify('sha256', quote.attest, { key: publicKey, dsaEncoding: 'ieee-p1363' }, raw));

      await using folder = await temporaryFolder();
      const { file } = folder;
      await writeFile(file('ak.pem'), publicKey.export({ type: 'spki', format: 'pem' }));
      await writeFile(file('quote'), quote.attest);
      await writeFile(file('sig'), quote.signature);
      const args = ['-u', file('ak.pem'), '-m', file('quote'), '-s', file('sig'), '-q'];
      await run('tpm2_checkquote', [...args, toHex(extraData)]);
      await assert.rejects(run('tpm2_checkquote', [...args, toHex(sha256(extraData))]));
    });
  }

  it('keeps the attestation key over a reboot, which resets the PCRs', async () => {
    await using own = await startSwtpm();
    const first = await withTpm(own.address, async (tpm) => {
      await tpm.extendPcr(15, sha256(new Uint8Array()));
      return provideAk(tpm, 'ecc-p256');
    });
    await own.reboot();
    const [second, pcrs] = await withTpm(own.address, async (tpm) => [
      await provideAk(tpm, 'ecc-p256'),
      await tpm.readPcrs([15]),
    ]);
    assert.deepEqual(second, first);
    assert.deepEqual(pcrs.get(15), new Uint8Array(32));
  });

  it('refuses a key of another type at the handle', async () => {
    await using own = await startSwtpm();
    await withTpm(own.address, (tpm) => provideAk(tpm, 'ecc-p256'));
    await assert.rejects(
      withTpm(own.address, (tpm) => provideAk(tpm, 'rsa-2048')),
      { code: 'ERR_TPM_AK' },
    );
  });

  it('refuses a second Startup', async () => {
    await using own = await startSwtpm();
    await withTpm(own.address, async (tpm) => {
      await assert.rejects(
        tpm.startup(),
        (error) => error instanceof TpmError && error.responseCode === 0x100,
      );
    });
  });

  it('names what the TPM refused', async () => {
    await assert.rejects(
      withTpm(swtpm.address, (tpm) => tpm.readPublic(0x81123456)),
      (error) => error instanceof TpmError && error.isNoSuchHandle && /TPM_RC_HANDLE/.test(error.message),
    );
    assert.equal(responseCodeName(0x921), 'TPM_RC_LOCKOUT');
    assert.equal(responseCodeName(0x1c4), 'TPM_RC_VALUE (parameter 1)');
    assert.equal(responseCodeName(0x98e), 'TPM_RC_AUTH_FAIL (session 1)');
    assert.equal(responseCodeName(0x18b), 'TPM_RC_HANDLE (handle 1)');
    assert.equal(responseCodeName(0xb0143), 'TPM_RC_COMMAND_CODE from layer 11');
    assert.equal(responseCodeName(0x1ff), 'TPM_RC_UNKNOWN (parameter 1)');
  });
});
