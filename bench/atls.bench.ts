import { attested, type HandshakeKind, measure, plain, type Round } from './atls-handshakes.ts';
import type { Bench, Row } from './bench.ts';
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
      [await attested(false, 1024), base],
      [await attested(false, 8192), base],
      [await attested(true, 1024), baseMutual],
      [await attested(true, 8192), baseMutual],
    ];
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

    const rates = (kind: HandshakeKind) => rounds.get(kind)!.map(({ perSecond }) => perSecond);
    const leastCpu = (kind: HandshakeKind) => Math.min(...rounds.get(kind)!.map(({ cpu }) => cpu));
    const rows: Row[] = [];
    for (const [kind, limit] of pairs) {
      rows.push({
        what: `${kind.name} handshakes`,
        value: median(rates(kind)),
        unit: '/s',
        ...(limit && { limit: { what: limit.name, value: median(rates(limit)) } }),
        note: `rounds: ${Math.round(Math.min(...rates(kind)))} to ${Math.round(Math.max(...rates(kind)))}`,
      });
    }
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
    const speed = opensslSpeed(['ecdsap256'])?.get('ecdsap256');
    if (speed !== undefined) {
      rows.push(
        { what: 'openssl speed: ECDSA P-256 signatures', value: speed.sign, unit: '/s', note: 'one core' },
        {
          what: 'openssl speed: ECDSA P-256 verifications',
          value: speed.verify,
          unit: '/s',
          note: 'one core',
        },
      );
    }
    return rows;
  },
} satisfies Bench;

function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)]!;
}
