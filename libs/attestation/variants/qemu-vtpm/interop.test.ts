import assert from 'node:assert/strict';
import { execFile, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { promisify } from 'node:util';
import { toBase64, toHex, toUtf8 } from '@asterism/bytes/encoding';
import { VerificationError } from '@asterism/errors/errors';
import { parseEventLog, replay } from '@asterism/eventlog/event-log';
import { writeEventLog } from '@asterism/eventlog/write';
import { buildGoPeer } from '@asterism/testkit/go-peer';
import { startSwtpm } from '@asterism/testkit/swtpm';
import { temporaryFolder } from '@asterism/testkit/temporary-folder';
import { parsePublicArea, parseQuoteAttest } from '@asterism/tpm/structures';
import { withTpm } from '@asterism/tpm/with-tpm';
import { withPcr } from '../../measurements.ts';
import { isAttestationKey } from './attestation-key.ts';
import { createQemuVtpmIssuer } from './issue.ts';
import { parseDocument } from './parse.ts';
import { QemuVtpmVerifier } from './verifier.ts';

const run = promisify(execFile);
const userData = new Uint8Array(32).fill(3);
const nonce = new Uint8Array(32).fill(4);
const zeroPcr15 = { measurements: withPcr(new Map(), 15, new Uint8Array(32)) };
const qualifying = (): string => createHash('sha256').update(userData).update(nonce).digest('hex');
const ALL = Array.from({ length: 24 }, (_, i) => i);

describe('tpm2-tools', () => {
  it('tpm2_checkquote accepts the quote in our document, with its PCR values', async () => {
    await using swtpm = await startSwtpm();
    await using folder = await temporaryFolder();
    const issuer = createQemuVtpmIssuer({ tpmAddress: swtpm.address, eventLogPath: undefined });
    const document = parseDocument(await issuer.issue(userData, nonce));
    const [quote] = document.quotes;
    await writeFile(folder.file('quote'), quote!.attest);
    await writeFile(folder.file('signature'), quote!.signature);
    const env = { ...process.env, TPM2TOOLS_TCTI: swtpm.tcti };
    await run('tpm2_readpublic', ['-c', '0x81008f01', '-f', 'pem', '-o', folder.file('ak.pem')], { env });
    const args = ['-u', folder.file('ak.pem'), '-m', folder.file('quote'), '-s', folder.file('signature')];
    await run('tpm2_checkquote', [...args, '-q', qualifying()]);
    await assert.rejects(run('tpm2_checkquote', [...args, '-q', toHex(nonce)]));
  });

  for (const [algorithm, name] of [
    ['ecc256:ecdsa-sha256:null', 'ECDSA'],
    ['rsa2048:rsassa-sha256:null', 'RSASSA'],
  ] as const) {
    it(`tpm2_quote makes evidence that we accept (${name}, key as v2.6 makes it)`, async () => {
      await using swtpm = await startSwtpm();
      await using folder = await temporaryFolder();
      const env = { ...process.env, TPM2TOOLS_TCTI: swtpm.tcti };
      const tool = (program: string, ...args: string[]) => run(program, args, { env, timeout: 20_000 });
      const attributes = 'fixedtpm|fixedparent|sensitivedataorigin|userwithauth|restricted|sign';
      await tool('tpm2_createprimary', '-C', 'o', '-G', algorithm, '-a', attributes, '-c', folder.file('ak'));
      await tool('tpm2_flushcontext', '-t');
      await tool('tpm2_readpublic', '-c', folder.file('ak'), '-f', 'tpmt', '-o', folder.file('public'));
      await tool('tpm2_flushcontext', '-t');
      const out = ['-m', folder.file('attest'), '-s', folder.file('signature')];
      const selection = `sha256:${ALL.join(',')}`;
      await tool('tpm2_quote', '-c', folder.file('ak'), '-l', selection, '-q', qualifying(), ...out);
      await tool('tpm2_flushcontext', '-t');
      const pcrs = await withTpm(swtpm.address, (tpm) => tpm.readPcrs(ALL));
      const base64 = async (file: string) => (await readFile(folder.file(file))).toString('base64');
      const quote = {
        quote: await base64('attest'),
        raw_sig: await base64('signature'),
        pcrs: { hash: 11, pcrs: Object.fromEntries([...pcrs].map(([i, v]) => [i, toBase64(v)])) },
      };
      const document = {
        Attestation: { ak_pub: await base64('public'), quotes: [quote], TeeAttestation: null },
        InstanceInfo: null,
        UserData: toBase64(userData),
      };
      const verdict = await new QemuVtpmVerifier(zeroPcr15).verify(toUtf8(JSON.stringify(document)), nonce);
      assert.equal(verdict.pcrs.size, 24);
    });
  }
});

const go = await buildGoPeer('attest-peer');

describe('go-tpm-tools, as v2.6 uses it', () => {
  const skip = 'skip' in go && go.skip;
  const peer = (args: readonly string[], input: Uint8Array = new Uint8Array()) => {
    if ('skip' in go) throw new Error(go.skip);
    const { status, stdout, stderr } = spawnSync(go.program, args, {
      input,
      encoding: 'utf8',
      timeout: 60_000,
    });
    return { status, stdout, stderr };
  };
  const stages = [{ pcr: 4, digest: new Uint8Array(32).fill(9), description: 'boot stage' }];
  const measure = (address: string) => withTpm(address, (tpm) => tpm.extendPcr(4, stages[0]!.digest));

  it('makes evidence that we accept, with a quote of every bank', { skip }, async () => {
    await using swtpm = await startSwtpm('sha1,sha256,sha384');
    await using folder = await temporaryFolder();
    await writeFile(folder.file('log'), writeEventLog(stages));
    await measure(swtpm.address);
    const made = peer(['issue', swtpm.socket, folder.file('log'), toHex(userData), toHex(nonce)]);
    assert.equal(made.status, 0, made.stderr);
    assert.equal(parseDocument(toUtf8(made.stdout)).quotes.length, 3);
    const verdict = await new QemuVtpmVerifier(zeroPcr15).verify(toUtf8(made.stdout), nonce);
    const outcome = (name: string) => verdict.checks.find((check) => check.name === name)?.outcome;
    assert.equal(outcome('event-log'), 'passed');
    assert.equal(outcome('pcr-15'), 'passed');
    await assert.rejects(new QemuVtpmVerifier(zeroPcr15).verify(toUtf8(made.stdout), userData), {
      code: 'ERR_QUOTE_NONCE',
    });
  });

  for (const akType of ['ecc-p256', 'rsa-2048'] as const) {
    it(`accepts ours (${akType})`, { skip }, async () => {
      await using swtpm = await startSwtpm();
      await using folder = await temporaryFolder();
      await writeFile(folder.file('log'), writeEventLog(stages));
      await measure(swtpm.address);
      const options = { tpmAddress: swtpm.address, eventLogPath: folder.file('log'), akType };
      const document = await createQemuVtpmIssuer(options).issue(userData, nonce);
      const judged = peer(['verify', toHex(userData), toHex(nonce)], document);
      assert.equal(judged.status, 0, judged.stderr);
      const { pcrs, hash, events } = JSON.parse(judged.stdout);
      assert.equal(hash, 'SHA256');
      assert.equal(events, 1);
      const own = await withTpm(swtpm.address, (tpm) => tpm.readPcrs(ALL));
      for (const [index, value] of own) assert.equal(pcrs[index], toHex(value));
      assert.notEqual(peer(['verify', toHex(userData), toHex(userData)], document).status, 0);
    });
  }
});

describe('evidence of a Google virtual machine, as go-tpm-tools wrote it', () => {
  const folder = join(import.meta.dirname, '../../../../../shared/vectors/go-tpm-tools/attestations');
  const skip = !existsSync(folder) && `NOT TESTED: ${folder} is not here`;

  for (const [file, extraData] of [
    ['gce-cos-85-no-nonce.pb', ''],
    ['gce-cos-85-nonce9009.pb', '9009'],
  ] as const) {
    it(file, { skip }, async () => {
      const { akPub, quotes, eventLog } = readAttestation(readFileSync(join(folder, file)));
      const area = parsePublicArea(akPub);
      assert.ok(isAttestationKey(area));
      assert.equal(quotes.length, 3);
      const log = parseEventLog(eventLog);
      // The header is no event to upstream.
      assert.equal(log.events.length - 1, 44);
      for (const { attest, hash, pcrs } of quotes) {
        const quote = parseQuoteAttest(attest);
        assert.equal(toHex(quote.extraData), extraData);
        assert.deepEqual(quote.selections, [{ hash, pcrs: ALL }]);
        // The digest is made with the hash of the signature, whatever the bank.
        const all = createHash('sha256');
        for (const index of ALL) all.update(pcrs.get(index)!);
        assert.equal(toHex(quote.pcrDigest), all.digest('hex'));
        for (const [index, value] of await replay(log, hash)) assert.deepEqual(value, pcrs.get(index));
      }
      // Its nonce is bound in another way than ours: everything before that check must pass, and that one must fail.
      const document = {
        Attestation: {
          ak_pub: toBase64(akPub),
          quotes: quotes.map(({ attest, signature, hash, pcrs }) => ({
            quote: toBase64(attest),
            raw_sig: toBase64(signature),
            pcrs: { hash, pcrs: Object.fromEntries([...pcrs].map(([i, v]) => [i, toBase64(v)])) },
          })),
          event_log: toBase64(eventLog),
        },
        InstanceInfo: null,
        UserData: toBase64(userData),
      };
      await assert.rejects(
        new QemuVtpmVerifier(zeroPcr15).verify(toUtf8(JSON.stringify(document)), nonce),
        (error) => {
          assert.ok(error instanceof VerificationError);
          assert.equal(error.code, 'ERR_QUOTE_NONCE');
          const passed = error.checks.filter(({ outcome }) => outcome === 'passed').map(({ name }) => name);
          assert.deepEqual(passed, ['ak-attributes', 'quote-bank', 'quote-signature', 'ak-name']);
          return true;
        },
      );
    });
  }
});

/** The fields of go-tpm-tools' Attestation message (protobuf) that are looked at here. */
function readAttestation(bytes: Uint8Array) {
  const top = protobuf(new Uint8Array(bytes));
  const quotes = all(top, 2).map((quote) => {
    const fields = protobuf(quote);
    const bank = protobuf(one(fields, 3));
    const pcrs = new Map<number, Uint8Array>();
    for (const entry of all(bank, 2)) {
      const pair = protobuf(entry);
      pcrs.set(Number(pair.find(({ field }) => field === 1)?.value ?? 0), one(pair, 2));
    }
    const hash = Number(bank.find(({ field }) => field === 1)?.value);
    return { attest: one(fields, 1), signature: one(fields, 2), hash, pcrs };
  });
  return { akPub: one(top, 1), quotes, eventLog: one(top, 3) };
}

type Field = { field: number; value: number | Uint8Array };

function protobuf(bytes: Uint8Array): Field[] {
  const fields: Field[] = [];
  let at = 0;
  const varint = (): number => {
    for (let value = 0, shift = 0; ; shift += 7) {
      const byte = bytes[at++]!;
      value += (byte & 0x7f) * 2 ** shift;
      if (byte < 0x80) return value;
    }
  };
  while (at < bytes.length) {
    const tag = varint();
    const value = varint();
    if ((tag & 7) === 0) fields.push({ field: tag >> 3, value });
    else {
      assert.equal(tag & 7, 2);
      fields.push({ field: tag >> 3, value: bytes.subarray(at, at + value) });
      at += value;
    }
  }
  return fields;
}

const all = (fields: Field[], wanted: number): Uint8Array[] =>
  fields
    .filter(({ field, value }) => field === wanted && typeof value !== 'number')
    .map(({ value }) => value as Uint8Array);
const one = (fields: Field[], wanted: number): Uint8Array => all(fields, wanted)[0]!;
