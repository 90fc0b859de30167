import { createQemuVtpmIssuer } from '@asterism/attestation/variants/qemu-vtpm/issue';
import { QemuVtpmVerifier } from '@asterism/attestation/variants/qemu-vtpm/verifier';
import { ForgingTpm } from '@asterism/testkit/forged-quote';
import { startSwtpm } from '@asterism/testkit/swtpm';
import { AK_HANDLE, Alg } from '@asterism/tpm/constants';
import { withTpm } from '@asterism/tpm/with-tpm';
import type { Bench, Row } from './bench.ts';
import { opensslSpeed } from './machine.ts';

const ROUNDS = 5;
const ALL_PCRS = Array.from({ length: 24 }, (_, index) => index);
const userData = new Uint8Array(32).fill(1);
const nonce = new Uint8Array(32).fill(2);
const ECDSA = { name: 'ECDSA', hash: 'SHA-256' };

type Work = (times: number) => Promise<unknown>;

/** Verifying and issuing qemu-vtpm documents. Rounds of all kinds in turn; the median counts. */
export default {
  name: 'attestation',
  async run({ quick, progress }) {
    const perRound = quick ? 50 : 250;
    await using swtpm = await startSwtpm();
    const issuer = createQemuVtpmIssuer({ tpmAddress: swtpm.address, eventLogPath: undefined });
    const document = await issuer.issue(userData, nonce);
    const verifier = new QemuVtpmVerifier({
      measurements: new Map(ALL_PCRS.map((pcr) => [pcr, { expected: new Uint8Array(32), warnOnly: true }])),
    });
    const works: Record<string, Work> = {
      verifySignature: await signatureAlone(),
      verify: (times) => inTurn(times, () => verifier.verify(document, nonce)),
      verifyParallel: (times) => inFlight(times, 16, () => verifier.verify(document, nonce)),
      verifyNewKeys: withNewKeys(verifier, (ROUNDS + 1) * perRound),
      quote: (times) =>
        withTpm(swtpm.address, async (tpm) => {
          const selection = [{ hash: Alg.SHA256, pcrs: ALL_PCRS }];
          await inTurn(times, () => tpm.quote(AK_HANDLE, nonce, selection));
        }),
      issue: (times) => inTurn(times, () => issuer.issue(userData, nonce)),
    };
    const rates = new Map(Object.keys(works).map((name): [string, number[]] => [name, []]));
    for (let round = 0; round <= ROUNDS; round++) {
      progress(round === 0 ? 'warming up' : `round ${round} of ${ROUNDS}`);
      for (const [name, work] of Object.entries(works)) {
        globalThis.gc?.();
        const started = performance.now();
        await work(perRound);
        const rate = (perRound * 1000) / (performance.now() - started);
        if (round > 0) rates.get(name)!.push(rate);
      }
    }
    const rate = (name: string) => median(rates.get(name)!);
    const signature = { what: 'WebCrypto ECDSA P-256 verify alone', value: rate('verifySignature') };
    const tpmLimit = { what: 'swtpm quotes on one connection', value: rate('quote') };
    const overhead = 1000 / rate('verify') - 1000 / rate('verifySignature');
    const rows: Row[] = [
      {
        what: 'quote verifications, one after the other',
        value: rate('verify'),
        unit: '/s',
        limit: signature,
      },
      {
        what: 'quote verifications, 16 in flight',
        value: rate('verifyParallel'),
        unit: '/s',
        limit: signature,
      },
      {
        what: 'quote verifications, each of a new key',
        value: rate('verifyNewKeys'),
        unit: '/s',
        limit: signature,
      },
      { what: 'a verification beyond its signature', value: overhead, unit: 'ms' },
      { what: 'documents issued, one after the other', value: rate('issue'), unit: '/s', limit: tpmLimit },
      { what: 'size of a document without event log', value: document.length, unit: 'B' },
    ];
    rows.push({
      what: 'openssl speed: ECDSA P-256 verifications',
      value: opensslSpeed('ecdsap256').verify,
      unit: '/s',
      note: 'one core',
    });
    return rows;
  },
} satisfies Bench;

async function signatureAlone(): Promise<Work> {
  const algorithm = { name: 'ECDSA', namedCurve: 'P-256' };
  const { privateKey, publicKey } = await crypto.subtle.generateKey(algorithm, false, ['sign', 'verify']);
  const signature = await crypto.subtle.sign(ECDSA, privateKey, nonce);
  return (times) => inTurn(times, () => crypto.subtle.verify(ECDSA, publicKey, signature, nonce));
}

/** Machines never seen before: nothing is remembered of them. Each document is used once. */
function withNewKeys(verifier: QemuVtpmVerifier, count: number): Work {
  const pcrs = new Map(ALL_PCRS.map((pcr) => [pcr, new Uint8Array(32)]));
  const documents = Array.from({ length: count }, () => new ForgingTpm().document(userData, nonce, pcrs));
  return (times) => inTurn(times, () => verifier.verify(documents.pop()!, nonce));
}

async function inTurn(times: number, work: () => Promise<unknown>): Promise<void> {
  for (let i = 0; i < times; i++) await work();
}

async function inFlight(times: number, width: number, work: () => Promise<unknown>): Promise<void> {
  await Promise.all(Array.from({ length: width }, () => inTurn(Math.ceil(times / width), work)));
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)]!;
}
