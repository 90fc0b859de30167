import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { after, before, describe, it } from 'node:test';
import { promisify } from 'node:util';
import { concat } from '@asterism/bytes/bytes';
import { fromBase64, fromUtf8, toBase64, toUtf8 } from '@asterism/bytes/encoding';
import { ParseError, PolicyError, VerificationError } from '@asterism/errors/errors';
import { writeEventLog } from '@asterism/eventlog/write';
import { type Forgery, ForgingTpm } from '@asterism/testkit/forged-quote';
import { type Swtpm, startSwtpm } from '@asterism/testkit/swtpm';
import { type TemporaryFolder, temporaryFolder } from '@asterism/testkit/temporary-folder';
import { AK_HANDLE, Alg, ObjectAttribute } from '@asterism/tpm/constants';
import { parsePublicArea } from '@asterism/tpm/structures';
import { AK_ATTRIBUTES } from '@asterism/tpm/template';
import { withTpm } from '@asterism/tpm/with-tpm';
import { clusterIdPcr } from '../../cluster-id.ts';
import { type Measurements, withPcr } from '../../measurements.ts';
import type { Issuer } from '../../types.ts';
import { createQemuVtpmIssuer } from './issue.ts';
import { QemuVtpmVerifier } from './verifier.ts';

// biome-ignore lint/suspicious/noExplicitAny: documents are taken apart and put together wrongly
type Json = any;
const digest = (text: string) => new Uint8Array(createHash('sha256').update(text).digest());
const select = (...pcrs: number[]) => ({ hash: Alg.SHA256, pcrs });
const userData = digest('key');
const nonce = new Uint8Array(randomBytes(32));

describe('qemu-vtpm', () => {
  let swtpm: Swtpm;
  let folder: TemporaryFolder;
  let issuer: Issuer;
  let good: Uint8Array;
  let measurements: Measurements;
  let pcrs: ReadonlyMap<number, Uint8Array>;
  let verifier: QemuVtpmVerifier;

  before(async () => {
    swtpm = await startSwtpm('sha256,sha384');
    folder = await temporaryFolder();
    const log = folder.file('log');
    await writeFile(log, writeEventLog([{ pcr: 4, digest: digest('boot'), description: 'boot' }]));
    pcrs = await withTpm(swtpm.address, async (tpm) => {
      await tpm.extendPcr(4, digest('boot'));
      return tpm.readPcrs([4, 8, 9, 11, 12, 13, 15]);
    });
    measurements = new Map([...pcrs].map(([index, expected]) => [index, { expected, warnOnly: false }]));
    issuer = createQemuVtpmIssuer({ tpmAddress: swtpm.address, eventLogPath: log });
    good = await issuer.issue(userData, nonce);
    verifier = new QemuVtpmVerifier({ measurements });
  });
  after(async () => {
    await swtpm[Symbol.asyncDispose]();
    await folder[Symbol.asyncDispose]();
  });

  const changed = (change: (document: Json) => void): Uint8Array => {
    const document = JSON.parse(fromUtf8(good));
    change(document);
    return toUtf8(JSON.stringify(document));
  };
  const refused = (document: Uint8Array, code: string) =>
    assert.rejects(verifier.verify(document, nonce), { code });

  it('accepts genuine evidence and lists every check', async () => {
    const verdict = await verifier.verify(good, nonce);
    assert.deepEqual(verdict.userData, userData);
    assert.equal(verdict.pcrs.size, 24);
    assert.match(verdict.attestationKeyId, /^[0-9a-f]{64}$/);
    const names = verdict.checks.map((check) => check.name);
    for (const name of [
      'ak-attributes',
      'quote-signature',
      'quote-nonce',
      'quote-pcrs',
      'event-log',
      'ak-trust',
      'pcr-15',
    ]) {
      assert.ok(names.includes(name), name);
    }
  });

  it('refuses a replay: another nonce, other user data', async () => {
    await assert.rejects(verifier.verify(good, new Uint8Array(32)), { code: 'ERR_QUOTE_NONCE' });
    await refused(
      changed((d) => {
        d.UserData = toBase64(digest('other key'));
      }),
      'ERR_QUOTE_NONCE',
    );
  });

  it('refuses PCR values that are not the quoted ones', async () => {
    const pcrsOf = (d: Json) => d.Attestation.quotes[0].pcrs.pcrs;
    await refused(
      changed((d) => {
        pcrsOf(d)[15] = toBase64(digest('x'));
      }),
      'ERR_QUOTE_PCRS',
    );
    await refused(
      changed((d) => {
        delete pcrsOf(d)[15];
      }),
      'ERR_QUOTE_PCRS',
    );
    await refused(
      changed((d) => {
        pcrsOf(d)[15] = '';
      }),
      'ERR_QUOTE_PCRS',
    );
  });

  it('refuses a SHA-256 quote without a signature beside a genuine one of another bank', async () => {
    const ak = await withTpm(swtpm.address, (tpm) => tpm.readPublic(AK_HANDLE));
    const inner = createHash('sha256').update(userData).update(nonce).digest();
    const { pcrs, quote } = await withTpm(swtpm.address, async (tpm) => ({
      pcrs: await tpm.readPcrs([4, 15], Alg.SHA384),
      quote: await tpm.quote(AK_HANDLE, inner, [{ hash: Alg.SHA384, pcrs: [4, 15] }]),
    }));
    const encoded = { quote: toBase64(quote.attest), raw_sig: toBase64(quote.signature) };
    const values = Object.fromEntries([...pcrs].map(([i, v]) => [i, toBase64(v)]));
    const genuine = { ...encoded, pcrs: { hash: Alg.SHA384, pcrs: values } };
    const lie = (d: Json) => {
      d.Attestation.ak_pub = toBase64(ak);
      d.Attestation.quotes[0].raw_sig = d.Attestation.quotes[0].raw_sig.replace(
        /.{8}==$|.{8}=$|.{8}$/,
        'AAAAAAAA',
      );
      d.Attestation.quotes.unshift(genuine);
    };
    await assert.rejects(
      verifier.verify(changed(lie), nonce),
      (error) => error instanceof VerificationError || error instanceof ParseError,
    );
    await refused(
      changed((d) => {
        d.Attestation.quotes = [genuine];
      }),
      'ERR_QUOTE_BANK',
    );
    await refused(
      changed((d) => {
        d.Attestation.quotes = [{ ...genuine, pcrs: { hash: Alg.SHA256, pcrs: values } }];
      }),
      'ERR_QUOTE_BANK',
    );
    await refused(
      changed((d) => {
        d.Attestation.quotes.push(d.Attestation.quotes[0]);
      }),
      'ERR_QUOTE_BANK',
    );
    const both = changed((d) => {
      d.Attestation.quotes.unshift(genuine);
    });
    assert.equal((await verifier.verify(both, nonce)).pcrs.get(4)!.length, 32);
  });

  it('refuses a forged SHA-256 quote with the wanted values beside a genuine one of another bank', async () => {
    const genuine = JSON.parse(fromUtf8(good)).Attestation;
    const lie = JSON.parse(fromUtf8(new ForgingTpm().document(userData, nonce, pcrs))).Attestation.quotes[0];
    const other = await withTpm(swtpm.address, async (tpm) => {
      const inner = createHash('sha256').update(userData).update(nonce).digest();
      return tpm.quote(AK_HANDLE, inner, [{ hash: Alg.SHA384, pcrs: [4] }]);
    });
    const values = await withTpm(swtpm.address, (tpm) => tpm.readPcrs([4], Alg.SHA384));
    const sha384 = {
      quote: toBase64(other.attest),
      raw_sig: toBase64(other.signature),
      pcrs: { hash: Alg.SHA384, pcrs: { 4: toBase64(values.get(4)!) } },
    };
    for (const quotes of [
      [sha384, lie],
      [lie, sha384],
    ]) {
      const document = changed((d) => {
        d.Attestation = { ...genuine, quotes };
      });
      await refused(document, 'ERR_QUOTE_SIGNATURE');
    }
  });

  it('refuses keys that are no restricted signing keys of a TPM, although their signature holds', async () => {
    for (const [attribute, set] of [
      [ObjectAttribute.RESTRICTED, false],
      [ObjectAttribute.FIXED_TPM, false],
      [ObjectAttribute.FIXED_PARENT, false],
      [ObjectAttribute.SENSITIVE_DATA_ORIGIN, false],
      [ObjectAttribute.SIGN, false],
      [ObjectAttribute.DECRYPT, true],
    ] as const) {
      const attributes = set ? AK_ATTRIBUTES | attribute : AK_ATTRIBUTES & ~attribute;
      await refused(new ForgingTpm(attributes).document(userData, nonce, pcrs), 'ERR_AK_ATTRIBUTES');
    }
  });

  it('refuses a key that is no point of the curve, and one of another curve or hash', async () => {
    const area = new ForgingTpm().publicArea;
    const at = (offset: number, value: number) => {
      const copy = area.slice();
      copy[offset] = value;
      return changed((d) => {
        d.Attestation.ak_pub = toBase64(copy);
      });
    };
    const [scheme, schemeHash, curve, lastOfY] = [13, 15, 17, area.length - 1];
    await refused(at(lastOfY, area[lastOfY]! ^ 1), 'ERR_EVIDENCE_FORM');
    await refused(at(schemeHash, Alg.SHA384), 'ERR_AK_ATTRIBUTES');
    await refused(at(schemeHash, Alg.SHA1), 'ERR_AK_ATTRIBUTES');
    await refused(at(curve, 4), 'ERR_AK_ATTRIBUTES');
    await refused(at(scheme, 0x1b), 'ERR_AK_ATTRIBUTES');
  });

  it('takes keys as v2.6 makes them, which are not exempt from dictionary-attack protection', async () => {
    const own = new ForgingTpm(AK_ATTRIBUTES & ~ObjectAttribute.NO_DA);
    await verifier.verify(own.document(userData, nonce, pcrs), nonce);
  });

  it('cannot tell a TPM from software that signs as one: the verdict says so, and a list of keys stops it', async () => {
    const forger = new ForgingTpm();
    const forged = forger.document(userData, nonce, pcrs);
    const verdict = await verifier.verify(forged, nonce);
    assert.equal(verdict.checks.find((check) => check.name === 'ak-trust')?.outcome, 'warning');
    const known = (await verifier.verify(good, nonce)).attestationKeyId;
    assert.notEqual(known, verdict.attestationKeyId);
    const strict = new QemuVtpmVerifier({ measurements, attestationKeys: new Set([known]) });
    const trusted = await strict.verify(good, nonce);
    assert.equal(trusted.checks.find((check) => check.name === 'ak-trust')?.outcome, 'passed');
    await assert.rejects(strict.verify(forged, nonce), { name: 'PolicyError', code: 'ERR_AK_UNKNOWN' });
  });

  const name = concat(Uint8Array.of(0, 0x0b), new Uint8Array(32));
  for (const [what, forgery, code] of [
    ['no TPM_GENERATED magic', { magic: 0xff544346 }, 'ERR_EVIDENCE_FORM'],
    ['the type of a certification', { type: 0x8017 }, 'ERR_EVIDENCE_FORM'],
    ['the name of another key', { qualifiedSigner: name }, 'ERR_AK_NAME'],
    ['no name at all', { qualifiedSigner: new Uint8Array() }, 'ERR_AK_NAME'],
    ['empty extra data', { extraData: new Uint8Array() }, 'ERR_QUOTE_NONCE'],
    ['the nonce itself as extra data', { extraData: nonce }, 'ERR_QUOTE_NONCE'],
    ['a selection of the SHA-1 bank', { selections: [{ hash: 4, pcrs: [4] }] }, 'ERR_QUOTE_BANK'],
    ['no selection', { selections: [] }, 'ERR_QUOTE_BANK'],
    ['two selections', { selections: [select(4), select(9)] }, 'ERR_QUOTE_BANK'],
    ['an empty selection', { selections: [select()] }, 'ERR_QUOTE_PCRS'],
    ['fewer selected PCRs than listed', { selections: [select(4)] }, 'ERR_QUOTE_PCRS'],
    ['another PCR digest', { pcrDigest: digest('x') }, 'ERR_QUOTE_PCRS'],
    ['no PCR digest', { pcrDigest: new Uint8Array() }, 'ERR_QUOTE_PCRS'],
    ['the SHA-1 bank beside it', { bank: 4 }, 'ERR_QUOTE_BANK'],
    ['a SHA-1 signature', { signatureHash: 'sha1' }, 'ERR_QUOTE_SIGNATURE'],
    ['a SHA-384 signature', { signatureHash: 'sha384' }, 'ERR_QUOTE_SIGNATURE'],
  ] as const satisfies readonly (readonly [string, Forgery, string])[]) {
    it(`refuses a well-signed quote with ${what}`, () =>
      refused(new ForgingTpm().document(userData, nonce, pcrs, forgery), code));
  }

  it('refuses an event log that does not lead to the quoted PCRs, and says when there is none', async () => {
    const log = writeEventLog([{ pcr: 4, digest: digest('other'), description: 'boot' }]);
    await refused(
      changed((d) => {
        d.Attestation.event_log = toBase64(log);
      }),
      'ERR_EVENT_LOG',
    );
    const verdict = await verifier.verify(
      changed((d) => {
        delete d.Attestation.event_log;
      }),
      nonce,
    );
    assert.equal(verdict.checks.find((check) => check.name === 'event-log')?.outcome, 'warning');
  });

  it('tells every enforced PCR that differs, and warns of the others', async () => {
    const other = digest('other');
    const differing = new Map(
      [...measurements].map(([i, m]) => [
        i,
        { ...m, expected: other, warnOnly: i !== 9 && i !== 11 && i !== 15 },
      ]),
    );
    await assert.rejects(new QemuVtpmVerifier({ measurements: differing }).verify(good, nonce), (error) => {
      assert.ok(error instanceof PolicyError);
      assert.deepEqual(
        error.checks.filter((c) => c.outcome === 'failed').map((c) => c.name),
        ['pcr-9', 'pcr-11', 'pcr-15'],
      );
      assert.equal(
        error.checks.filter((c) => c.outcome === 'warning' && c.name.startsWith('pcr-')).length,
        4,
      );
      return true;
    });
  });

  it('compares against something, or not at all', async () => {
    await assert.rejects(new QemuVtpmVerifier({ measurements: new Map() }).verify(good, nonce), {
      code: 'ERR_MEASUREMENTS',
    });
  });

  it('never accepts a document with a flipped bit, but for text in the event log that no digest covers', async () => {
    const log = (bytes: Uint8Array) => JSON.parse(fromUtf8(bytes)).Attestation.event_log;
    const reference = [...(await verifier.verify(good, nonce)).pcrs];
    for (let offset = 0; offset < good.length; offset++) {
      for (const bit of [0, 1, 5]) {
        const copy = good.slice();
        copy[offset]! ^= 1 << bit;
        try {
          const verdict = await verifier.verify(copy, nonce);
          assert.notEqual(log(copy), log(good), `bit ${bit} of byte ${offset} is not covered by any check`);
          assert.deepEqual(verdict.userData, userData);
          assert.deepEqual([...verdict.pcrs], reference);
        } catch (error) {
          if (error instanceof assert.AssertionError) throw error;
          assert.ok(
            error instanceof ParseError || error instanceof VerificationError || error instanceof PolicyError,
            String(error),
          );
        }
      }
    }
  });

  it('never accepts a document with a flipped bit where there is no event log', async () => {
    const bare = changed((d) => {
      delete d.Attestation.event_log;
    });
    await verifier.verify(bare, nonce);
    for (let offset = 0; offset < bare.length; offset++) {
      for (let bit = 0; bit < 8; bit++) {
        const copy = bare.slice();
        copy[offset]! ^= 1 << bit;
        await assert.rejects(
          verifier.verify(copy, nonce),
          (error) => {
            return (
              error instanceof ParseError ||
              error instanceof VerificationError ||
              error instanceof PolicyError
            );
          },
          `bit ${bit} of byte ${offset}`,
        );
      }
    }
  });

  it('refuses doubled names, at any depth', async () => {
    const text = fromUtf8(good);
    for (const name of [
      'UserData',
      'Attestation',
      'ak_pub',
      'quotes',
      'raw_sig',
      'hash',
      '15',
      'event_log',
    ]) {
      const doubled = text.replace(`"${name}":`, `"${name}":null,"${name}":`);
      assert.notEqual(doubled, text);
      await assert.rejects(verifier.verify(toUtf8(doubled), nonce), /occurs twice/);
    }
  });

  it('refuses garbage, truncations, oversize and unknown fields', async () => {
    for (const text of ['', '{}', '[]', 'null', '{"Attestation":null}', '\u{fffd}']) {
      await assert.rejects(verifier.verify(toUtf8(text), nonce), ParseError);
    }
    for (let length = 0; length < good.length; length += 97)
      await assert.rejects(verifier.verify(good.subarray(0, length), nonce), ParseError);
    await assert.rejects(verifier.verify(new Uint8Array(60_001), nonce), ParseError);
    await assert.rejects(
      verifier.verify(
        changed((d) => {
          d.Extra = 1;
        }),
        nonce,
      ),
      ParseError,
    );
    await assert.rejects(
      verifier.verify(
        changed((d) => {
          d.Attestation.TeeAttestation = {};
        }),
        nonce,
      ),
      ParseError,
    );
    await assert.rejects(
      verifier.verify(
        changed((d) => {
          d.Attestation.quotes = Array(5).fill(d.Attestation.quotes[0]);
        }),
        nonce,
      ),
      ParseError,
    );
  });

  it('lists what was found before a structure turned out to be malformed', async () => {
    const log = changed((d) => {
      d.Attestation.event_log = toBase64(new Uint8Array(100));
    });
    await assert.rejects(verifier.verify(log, nonce), (error: VerificationError) => {
      assert.equal(error.code, 'ERR_EVIDENCE_FORM');
      const outcomes = error.checks.map(({ name, outcome }) => `${name} ${outcome}`);
      assert.ok(outcomes.includes('quote-signature passed') && outcomes.includes('quote-pcrs passed'));
      assert.equal(outcomes.at(-1), 'form failed');
      return true;
    });
    // TPM_GENERATED (TPM 2.0 Part 2, 6.2) says that the TPM made the structure itself.
    const magic = changed((d) => {
      const quote = d.Attestation.quotes.find((one: Json) => one.pcrs.hash === Alg.SHA256);
      const attest = fromBase64(quote.quote);
      attest[0]! ^= 1;
      quote.quote = toBase64(attest);
    });
    await refused(magic, 'ERR_EVIDENCE_FORM');
  });

  it('shows membership in PCR 15, after which a machine is no newcomer', async () => {
    await using own = await startSwtpm();
    const clusterId = digest('cluster');
    await withTpm(own.address, (tpm) => tpm.eventPcr(15, clusterId));
    const member = await createQemuVtpmIssuer({ tpmAddress: own.address, eventLogPath: undefined }).issue(
      userData,
      nonce,
    );
    const zero = withPcr(new Map(), 15, new Uint8Array(32));
    await assert.rejects(new QemuVtpmVerifier({ measurements: zero }).verify(member, nonce), PolicyError);
    const policy = { measurements: withPcr(new Map(), 15, await clusterIdPcr(clusterId)) };
    await new QemuVtpmVerifier(policy).verify(member, nonce);
  });

  it('takes the new policy for the next document', async () => {
    const own = new QemuVtpmVerifier({ measurements });
    own.update({ measurements: withPcr(measurements, 9, digest('new image')) });
    await assert.rejects(own.verify(good, nonce), PolicyError);
    own.update({ measurements });
    await own.verify(good, nonce);
  });

  it('binds with RSA keys and the v2.17 formula too', async () => {
    await using own = await startSwtpm();
    const options = {
      tpmAddress: own.address,
      eventLogPath: undefined,
      akType: 'rsa-2048',
      binding: 'v2.17',
    } as const;
    const document = await createQemuVtpmIssuer(options).issue(userData, nonce);
    const policy = { measurements: withPcr(new Map(), 15, new Uint8Array(32)) };
    const verdict = await new QemuVtpmVerifier(policy, 'v2.17').verify(document, nonce);
    assert.equal(
      parsePublicArea(fromBase64(JSON.parse(fromUtf8(document)).Attestation.ak_pub)).key.type,
      'rsa',
    );
    assert.deepEqual(verdict.userData, userData);
    await assert.rejects(new QemuVtpmVerifier(policy).verify(document, nonce), { code: 'ERR_QUOTE_NONCE' });
  });

  it('says what is true now: after an extend, a reboot, a removed key, a TPM of another owner seed', async () => {
    await using own = await startSwtpm();
    const machine = createQemuVtpmIssuer({ tpmAddress: own.address, eventLogPath: undefined });
    const judge = new QemuVtpmVerifier({ measurements: withPcr(new Map(), 8, new Uint8Array(32)) });
    const verdict = async () => judge.verify(await machine.issue(userData, nonce), nonce);
    const before = await verdict();
    await withTpm(own.address, (tpm) => tpm.extendPcr(23, digest('x')));
    const extended = await verdict();
    assert.notDeepEqual(extended.pcrs.get(23), before.pcrs.get(23));
    await own.reboot();
    assert.deepEqual((await verdict()).pcrs.get(23), before.pcrs.get(23));
    await withTpm(own.address, (tpm) => tpm.evictControl(AK_HANDLE, AK_HANDLE));
    assert.equal((await verdict()).attestationKeyId, before.attestationKeyId);
    await promisify(execFile)('tpm2_clear', ['-c', 'p'], {
      env: { ...process.env, TPM2TOOLS_TCTI: own.tcti },
    });
    assert.notEqual((await verdict()).attestationKeyId, before.attestationKeyId);
  });

  it('quotes while PCRs are being extended', async () => {
    await using own = await startSwtpm();
    const machine = createQemuVtpmIssuer({ tpmAddress: own.address, eventLogPath: undefined });
    const judge = new QemuVtpmVerifier({ measurements: withPcr(new Map(), 8, new Uint8Array(32)) });
    const extending = Array.from({ length: 40 }, () =>
      withTpm(own.address, (tpm) => tpm.extendPcr(23, digest('x'))),
    );
    for (let i = 0; i < 20; i++) await judge.verify(await machine.issue(userData, nonce), nonce);
    await Promise.all(extending);
  });

  it('does not send an event log that no document can hold', async () => {
    const file = folder.file('large');
    await writeFile(file, new Uint8Array(70_000));
    const machine = createQemuVtpmIssuer({ tpmAddress: swtpm.address, eventLogPath: file });
    await assert.rejects(machine.issue(userData, nonce), { code: 'ERR_DOCUMENT_SIZE' });
  });

  it('refuses more requests than it lets wait', async () => {
    const busy = createQemuVtpmIssuer({ tpmAddress: swtpm.address, eventLogPath: undefined, maxPending: 2 });
    const results = await Promise.allSettled(Array.from({ length: 5 }, () => busy.issue(userData, nonce)));
    assert.equal(results.filter((result) => result.status === 'fulfilled').length, 2);
    assert.ok(results.every((r) => r.status === 'fulfilled' || r.reason.code === 'ERR_ISSUER_BUSY'));
  });
});
