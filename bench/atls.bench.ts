import { attested, type HandshakeKind, plain, rate } from './atls-handshakes.ts';
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
    const pairs: [HandshakeKind, HandshakeKind][] = [
      [await attested(false, 1024), base],
      [await attested(false, 8192), base],
      [await attested(true, 1024), baseMutual],
      [await attested(true, 8192), baseMutual],
    ];
    const kinds = [base, baseMutual, ...pairs.map(([kind]) => kind)];
    const rates = new Map<HandshakeKind, number[]>(kinds.map((kind) => [kind, []]));
    for (const kind of kinds) await rate(kind, perRound, IN_FLIGHT);
    for (let round = 1; round <= ROUNDS; round++) {
      progress(`round ${round} of ${ROUNDS}`);
      for (const kind of kinds) {
        globalThis.gc?.();
        rates.get(kind)!.push(await rate(kind, perRound, IN_FLIGHT));
      }
    }
    for (const kind of kinds) kind.close();

    const rows: Row[] = [base, baseMutual].map((kind) => ({
      what: `${kind.name} handshakes`,
      value: median(rates.get(kind)!),
      unit: '/s',
      note: spread(rates.get(kind)!),
    }));
    for (const [kind, limit] of pairs) {
      rows.push({
        what: `${kind.name} handshakes`,
        value: median(rates.get(kind)!),
        unit: '/s',
        limit: { what: limit.name, value: median(rates.get(limit)!) },
        note: spread(rates.get(kind)!),
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

function spread(values: readonly number[]): string {
  return `rounds: ${Math.round(Math.min(...values))} to ${Math.round(Math.max(...values))}`;
}
