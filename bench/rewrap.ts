import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { renderEnvelope, sealDek } from '@asterism/kms/envelope';
import { openKek } from '@asterism/kms/open';
import { type KekGeneration, rewrapAll } from '@asterism/kms/rewrap';
import type { DekStore } from '@asterism/kms/store';
import { openFolderStore } from '@asterism/kms/stores/folder/store';
import type { BenchContext, Row } from './bench.ts';
import { CLUSTER_ID, type TwoKeks } from './kms.ts';
import { load, median } from './load.ts';

const CONCURRENCY = 16;
const PARTS = 5;
/** Objects that are only read and written, for the limit. */
const SPARE = 500;

/** Keys in a folder in memory, wrapped by another KEK: one run, in parts, and between them each limit. */
export async function rewrapRows(kms: TwoKeks, { quick, progress }: BenchContext): Promise<Row[]> {
  // Not on the disk: what one of its folders can do is not the question, and other programs use it, too.
  const folder = await mkdtemp('/dev/shm/asterism-bench-');
  const store = await openFolderStore(`${folder}/keys`);
  const spare = await openFolderStore(`${folder}/spare`);
  const from = { kek: await openKek(kms.old), generation: 1 };
  const to = { kek: await openKek(kms.next), generation: 2 };
  try {
    const count = quick ? 500 : 10_000;
    progress(`${kms.name}: making ${count} keys`);
    await fill(store, from, count);
    await fill(spare, from, SPARE);
    return await measure(kms, { from, to, store, spare, count }, progress);
  } finally {
    await Promise.all([from.kek.close(), to.kek.close(), store.close(), spare.close()]);
    await rm(folder, { recursive: true });
  }
}

async function fill(store: DekStore, { kek, generation }: KekGeneration, count: number): Promise<void> {
  await load(count, CONCURRENCY, async (n) => {
    const binding = { dekId: `key-${n}`, clusterId: CLUSTER_ID, generation };
    const dek = new Uint8Array(randomBytes(32));
    await store.create(binding.dekId, renderEnvelope(await sealDek(kek, binding, dek)));
  });
}

interface World {
  readonly from: KekGeneration;
  readonly to: KekGeneration;
  readonly store: DekStore;
  readonly spare: DekStore;
  readonly count: number;
}

/** Of each part: keys a second, and microseconds of this process for a key. */
class Clock {
  readonly perSecond: number[] = [];
  readonly processor: number[] = [];
  #started = 0;
  #before = process.cpuUsage();

  start(): void {
    this.#started = performance.now();
    this.#before = process.cpuUsage();
  }

  stop(keys: number): void {
    this.perSecond.push((1000 * keys) / (performance.now() - this.#started));
    const { user, system } = process.cpuUsage(this.#before);
    this.processor.push((user + system) / keys);
  }
}

async function measure(
  kms: TwoKeks,
  { from, to, store, spare, count }: World,
  progress: BenchContext['progress'],
): Promise<Row[]> {
  const context = 'x'.repeat(140);
  const key = new Uint8Array(randomBytes(32));
  const wrapped = await from.kek.wrap(key, context);
  const kmsCalls = async () => {
    await from.kek.unwrap(wrapped, context);
    await to.kek.unwrap(await to.kek.wrap(key, context), context);
  };
  const limits: Record<string, { clock: Clock; call: (n: number) => Promise<void> }> = {
    'its KMS calls, plain HTTP client': { clock: new Clock(), call: () => kms.bare() },
    'its KMS calls, by our backend': { clock: new Clock(), call: kmsCalls },
    'its KMS and store calls, bare': {
      clock: new Clock(),
      async call(n) {
        const name = `key-${n % SPARE}`;
        const { bytes, version } = (await spare.get(name))!;
        await kmsCalls();
        await spare.replace(name, bytes, version);
        await spare.get(name);
      },
    },
  };
  const part = count / PARTS;
  const clock = new Clock();
  // What is in use, without garbage, must not grow with the number of keys.
  const inUse: number[] = [];
  let peak = 0;
  let total = 0;
  const stop = () => {
    clock.stop(part);
    globalThis.gc?.();
    inUse.push(process.memoryUsage().heapUsed / 1e6);
  };
  const ids = async function* () {
    let given = 0;
    for await (const id of store.list()) {
      if (given % part === 0) {
        while (total < given) await delay(1);
        if (given > 0) stop();
        progress(`${kms.name}: limits before key ${given}`);
        for (const { clock, call } of Object.values(limits)) {
          clock.start();
          await load(part / 2, CONCURRENCY, call);
          clock.stop(part / 2);
        }
        progress(`${kms.name}: re-wrapping`);
        clock.start();
      }
      given++;
      yield id;
    }
  };
  const result = await rewrapAll({
    ...{ from, to, clusterId: CLUSTER_ID, concurrency: CONCURRENCY },
    store: {
      get: (...a) => store.get(...a),
      create: (...a) => store.create(...a),
      replace: (...a) => store.replace(...a),
      remove: (...a) => store.remove(...a),
      list: ids,
      close: () => store.close(),
    },
    onProgress: (now) => {
      total = now.total;
      if (total % 50 === 0) peak = Math.max(peak, process.memoryUsage().rss);
    },
  });
  stop();
  if (result.rewrapped !== count) throw new Error(`${result.rewrapped} of ${count} keys were re-wrapped`);
  const what = `re-wrap of ${count} keys, ${kms.name}`;
  const percents = (limit: Clock) =>
    limit.perSecond.map((of, i) => Math.round((100 * clock.perSecond[i]!) / of));
  return [
    ...Object.entries(limits).map(([name, limit]) => ({
      what,
      value: median(clock.perSecond),
      unit: 'keys/s',
      limit: { what: name, value: median(limit.clock.perSecond) },
      note: `${CONCURRENCY} at a time; by part: ${percents(limit.clock).join(', ')} %; aim: 80 %`,
    })),
    ...Object.entries(limits).map(([name, limit]) => ({
      what: `${what}, processor time of a key`,
      value: median(clock.processor),
      unit: 'µs',
      limit: { what: name, value: median(limit.clock.processor) },
      note: 'less is better; without the KMS; other programs on the machine hardly change it',
    })),
    {
      what: `${what}, heap in use at its end`,
      value: inUse.at(-1)!,
      unit: 'MB',
      limit: { what: 'after a fifth of the keys', value: inUse[0]! },
      note: `less is better; after each fifth: ${inUse.map((used) => used.toFixed(1)).join(', ')} MB; resident at most ${Math.round(peak / 1e6)} MB, with the bench itself`,
    },
  ];
}
