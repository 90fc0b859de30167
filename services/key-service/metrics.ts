import { KEY_GENERATION_METRIC } from '@asterism/kms/key-configuration';
import type { KeyObserver } from '@asterism/kms/types';
import { Counter, Gauge, Histogram, type Registry } from 'prom-client';

const SECONDS = [0.005, 0.02, 0.1, 0.5, 2, 10, 30];

import type { KeyHomes } from './key-homes.ts';

/** What of the key homes is counted. */
export function keyMetrics(
  registry: Registry,
  homes: () => Pick<KeyHomes, 'generation' | 'version'>,
): { readonly observer: KeyObserver } {
  const exchanges = new Histogram({
    name: 'asterism_kms_exchange_seconds',
    help: 'Exchanges with the external KMS and the store of wrapped keys, by what came of them',
    labelNames: ['with', 'outcome', 'code'],
    buckets: SECONDS,
    registers: [registry],
  });
  const cache = new Counter({
    name: 'asterism_key_cache_total',
    help: 'Stored keys that were asked for, by whether they were in memory',
    labelNames: ['outcome'],
    registers: [registry],
  });
  new Gauge({
    name: KEY_GENERATION_METRIC,
    help: 'Generation of the key encryption key that new keys get, by the version of the configuration that says so',
    labelNames: ['version'],
    registers: [registry],
    collect() {
      const { generation, version } = homes();
      this.reset();
      this.set({ version }, generation);
    },
  });
  return {
    observer: {
      onExchange: (other, outcome, ms, code = '') =>
        exchanges.observe({ with: other, outcome, code }, ms / 1000),
      onCache: (hit) => cache.inc({ outcome: hit ? 'hit' : 'miss' }),
    },
  };
}
