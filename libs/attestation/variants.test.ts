import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { toBase64, toUtf8 } from '@asterism/bytes/encoding';
import { ParseError } from '@asterism/errors/errors';
import { ForgingTpm } from '@asterism/testkit/forged-quote';
import { startSwtpm } from '@asterism/testkit/swtpm';
import { createIssuer } from './issuer.ts';
import { isVariant, VARIANTS } from './variants.ts';
import { createVerifier } from './verifier.ts';

const zero = new Uint8Array(32);
const measurements = new Map([[15, { expected: zero, warnOnly: false }]]);
const userData = new Uint8Array(32).fill(1);
const nonce = new Uint8Array(32).fill(2);

describe('variants', () => {
  it('are known by name, and names of object properties are none', () => {
    for (const variant of ['', 'qemu', 'aws-nitro-tpm', 'toString', '__proto__']) {
      assert.equal(isVariant(variant), false);
      assert.throws(() => createVerifier({ variant, measurements }), { code: 'ERR_VARIANT' });
      assert.throws(() => createIssuer({ variant, tpmAddress: 'swtpm:/x', eventLogPath: undefined }), {
        code: 'ERR_VARIANT',
      });
    }
  });

  it('have an OID of their own each, and say what their evidence rests on', () => {
    const rows = Object.values(VARIANTS);
    assert.equal(new Set(rows.map(({ oid }) => oid)).size, rows.length);
    for (const { oid, trust } of rows) {
      assert.match(oid, /^1\.3\.9900(\.\d+)+$/);
      assert.match(trust, /\.$/);
    }
  });

  it('qemu-vtpm: what its issuer makes, its verifier accepts', async () => {
    await using swtpm = await startSwtpm();
    const issuer = createIssuer({ variant: 'qemu-vtpm', tpmAddress: swtpm.address, eventLogPath: undefined });
    const verifier = createVerifier({ variant: 'qemu-vtpm', measurements });
    const verdict = await verifier.verify(await issuer.issue(userData, nonce), nonce);
    assert.deepEqual(verdict.userData, userData);
    assert.equal(verifier.oid, issuer.oid);
  });

  it('swaps measurements without dropping what is under way', async () => {
    const verifier = createVerifier({ variant: 'qemu-vtpm', measurements });
    const document = new ForgingTpm().document(userData, nonce, new Map([[15, zero]]));
    const underWay = verifier.verify(document, nonce);
    verifier.update({ measurements: new Map([[15, { expected: nonce, warnOnly: false }]]) });
    await underWay;
    await assert.rejects(verifier.verify(document, nonce), { code: 'ERR_MEASUREMENTS_DIFFER' });
  });
});

describe('dummy', () => {
  const machine = { tpmAddress: 'swtpm:/x', eventLogPath: undefined };

  it('is made only by whoever asks for insecurity', () => {
    for (const allowInsecure of [undefined, false]) {
      const word = allowInsecure === undefined ? {} : { allowInsecure };
      assert.throws(() => createVerifier({ variant: 'dummy', measurements, ...word }), {
        code: 'ERR_INSECURE_VARIANT',
      });
      assert.throws(() => createIssuer({ variant: 'dummy', ...machine, ...word }), {
        code: 'ERR_INSECURE_VARIANT',
      });
    }
  });

  it('checks the nonce, says that it proves nothing, and refuses garbage', async () => {
    const issuer = createIssuer({ variant: 'dummy', ...machine, allowInsecure: true });
    const verifier = createVerifier({ variant: 'dummy', measurements, allowInsecure: true });
    const document = await issuer.issue(userData, nonce);
    const verdict = await verifier.verify(document, nonce);
    assert.deepEqual(verdict.userData, userData);
    assert.deepEqual(
      verdict.checks.map(({ outcome }) => outcome),
      ['warning'],
    );
    await assert.rejects(verifier.verify(document, userData), { code: 'ERR_NONCE' });
    const garbage = ['', 'null', '[]', '{}', `{"UserData":"!","Nonce":"${toBase64(nonce)}"}`].map(toUtf8);
    for (const bytes of [...garbage, new Uint8Array(60_001)])
      await assert.rejects(verifier.verify(bytes, nonce), ParseError);
  });
});
