import { createQemuVtpmIssuer } from '@asterism/attestation/variants/qemu-vtpm/issue';
import { QemuVtpmVerifier } from '@asterism/attestation/variants/qemu-vtpm/verifier';
import { type Swtpm, startSwtpm } from '@asterism/testkit/swtpm';
import { AK_HANDLE, Alg } from '@asterism/tpm/constants';
import { withTpm } from '@asterism/tpm/with-tpm';
import {
  attested,
  type Evidence,
  type HandshakeKind,
  madeUp,
  measure,
  plain,
  type Round,
} from './atls-handshakes.ts';
import type { Bench, Row } from './bench.ts';
import { load, median } from './load.ts';
import { opensslSpeed } from './machine.ts';

const IN_FLIGHT = 16;
const ROUNDS = 5;

/** Handshakes per second, client and server in one process; rounds of all kinds in turn, the median counts. */
export default {
  name: 'atls',
  async run({ quick, progress }) {
    const perRound = quick ? 40 : 200;
    const base = await plain(false);
    const baseMutual = await plain(true);
    const pairs: [HandshakeKind, HandshakeKind | undefined][] = [
      [base, undefined],
      [baseMutual, undefined],
      [await attested(false, madeUp(1024)), base],
      [await attested(false, madeUp(8192)), base],
      [await attested(true, madeUp(1024)), baseMutual],
      [await attested(true, madeUp(8192)), baseMutual],
    ];
    await using tpm = await startSwtpm();
    const real = tpmEvidence(tpm);
    const ofTpm = [await attested(false, real), await attested(true, real)];
    const rounds = new Map<HandshakeKind, Round[]>(pairs.map(([kind]) => [kind, []]));
    for (const [kind] of pairs) await measure(kind, perRound, IN_FLIGHT);
    for (let round = 1; round <= ROUNDS; round++) {
      progress(`round ${round} of ${ROUNDS}`);
      for (const [kind] of pairs) {
        globalThis.gc?.();
        rounds.get(kind)!.push(await measure(kind, perRound, IN_FLIGHT));
      }
    }
    for (const [kind] of pairs) kind.close();
    progress('handshakes with quotes');
    const quoted: Row[] = [];
    for (const [index, kind] of ofTpm.entries()) {
      await measure(kind, perRound, IN_FLIGHT);
      const { perSecond } = await measure(kind, perRound, IN_FLIGHT);
      kind.close();
      const quotes = index + 1;
      quoted.push({
        what: `${kind.name} handshakes`,
        value: perSecond,
        unit: '/s',
        limit: { what: `quotes of this swtpm / ${quotes}`, value: (await quoteRate(tpm, perRound)) / quotes },
        note: 'real quotes, made and verified for each handshake',
      });
    }

    const rates = (kind: HandshakeKind) => rounds.get(kind)!.map(({ perSecond }) => perSecond);
    const leastCpu = (kind: HandshakeKind) => Math.min(...rounds.get(kind)!.map(({ cpu }) => cpu));
    const rows: Row[] = [];
    for (const [kind, limit] of pairs) {
      rows.push({
        what: `${kind.name} handshakes`,
        value: median(rates(kind)),
        unit: '/s',
        ...(limit && { limit: { what: limit.name, value: median(rates(limit)) } }),
        note: `${limit === undefined ? '' : 'evidence that costs nothing; '}rounds: ${Math.round(Math.min(...rates(kind)))} to ${Math.round(Math.max(...rates(kind)))}`,
      });
    }
    rows.push(...quoted);
    // Where other programs take the processor, this says more than the rates: the least of the rounds.
    for (const [kind, limit] of pairs) {
      const share = limit && Math.round((100 * leastCpu(limit)) / leastCpu(kind));
      rows.push({
        what: `${kind.name}: processor time of a handshake`,
        value: leastCpu(kind),
        unit: 'us',
        ...(limit && { note: `by this measure ${share} % of ${limit.name}` }),
      });
    }
    const { sign, verify } = opensslSpeed('ecdsap256');
    rows.push(
      { what: 'openssl speed: ECDSA P-256 signatures', value: sign, unit: '/s', note: 'one core' },
      { what: 'openssl speed: ECDSA P-256 verifications', value: verify, unit: '/s', note: 'one core' },
    );
    return rows;
  },
} satisfies Bench;

const ALL_PCRS = Array.from({ length: 24 }, (_, index) => index);

function tpmEvidence({ address }: Swtpm): Evidence {
  const measurements = new Map(
    ALL_PCRS.map((pcr) => [pcr, { expected: new Uint8Array(32), warnOnly: true }]),
  );
  return {
    what: 'TPM quotes',
    issuer: createQemuVtpmIssuer({ tpmAddress: address, eventLogPath: undefined }),
    verifier: new QemuVtpmVerifier({ measurements }),
  };
}

/** Quotes per second on one connection. */
function quoteRate({ address }: Swtpm, count: number): Promise<number> {
  return withTpm(address, async (tpm) => {
    const selection = [{ hash: Alg.SHA256, pcrs: ALL_PCRS }];
    const { perSecond } = await load(count, 1, () => tpm.quote(AK_HANDLE, new Uint8Array(32), selection));
    return perSecond;
  });
}
