import { randomBytes } from 'node:crypto';
import { renderEnvelope, sealDek } from '@asterism/kms/envelope';
import { openKek } from '@asterism/kms/open';
import { rewrapAll } from '@asterism/kms/rewrap';
import { openFolderStore } from '@asterism/kms/stores/folder/store';
import { temporaryFolder } from '@asterism/testkit/temporary-folder';
import type { BenchContext, Row } from './bench.ts';
import { CLUSTER_ID, type TwoKeks } from './kms.ts';
import { load } from './load.ts';

const CONCURRENCY = 16;

/** Keys in a folder, wrapped by another KEK; against the KMS alone, asked for the same before and after. */
export async function rewrapRows(kms: TwoKeks, { quick, progress }: BenchContext): Promise<Row[]> {
  await using folder = await temporaryFolder();
  const count = quick ? 500 : 10_000;
  const store = await openFolderStore(folder.path);
  const from = { kek: await openKek(kms.old), generation: 1 };
  const to = { kek: await openKek(kms.next), generation: 2 };
  progress(`${kms.name}: making ${count} keys`);
  await load(count, CONCURRENCY, async (n) => {
    const binding = { dekId: `key-${n}`, clusterId: CLUSTER_ID, generation: 1 };
    await store.create(
      binding.dekId,
      renderEnvelope(await sealDek(from.kek, binding, new Uint8Array(randomBytes(32)))),
    );
  });
  const bareRate = async () => (await load(count / 4, CONCURRENCY, () => kms.bare())).perSecond;
  progress(`${kms.name}: bare`);
  const before = await bareRate();
  progress(`${kms.name}: re-wrapping`);
  // What is in use, without garbage, must not grow with the number of keys.
  const inUse: number[] = [];
  let peak = 0;
  const started = performance.now();
  const result = await rewrapAll({
    ...{ from, to, store, clusterId: CLUSTER_ID, concurrency: CONCURRENCY },
    onProgress: ({ total }) => {
      if (total % 50 === 0) peak = Math.max(peak, process.memoryUsage().rss);
      if (total % (count / 5) !== 0) return;
      globalThis.gc?.();
      inUse.push(process.memoryUsage().heapUsed / 1e6);
    },
  });
  const perSecond = (1000 * count) / (performance.now() - started);
  if (result.rewrapped !== count) throw new Error(`${result.rewrapped} of ${count} keys were re-wrapped`);
  progress(`${kms.name}: bare again`);
  const after = await bareRate();
  await Promise.all([from.kek.close(), to.kek.close(), store.close()]);
  return [
    {
      what: `re-wrap of ${count} keys, ${kms.name}`,
      value: perSecond,
      unit: 'keys/s',
      limit: { what: 'its three calls for each, bare', value: (before + after) / 2 },
      note: `${CONCURRENCY} at a time, wrapped keys in a folder; bare before and after: ${Math.round(before)}, ${Math.round(after)} keys/s; aim: 80 %`,
    },
    {
      what: `re-wrap, ${kms.name}, heap in use at its end`,
      value: inUse.at(-1)!,
      unit: 'MB',
      limit: { what: 'after a fifth of the keys', value: inUse[0]! },
      note: `less is better; after each fifth: ${inUse.map((used) => used.toFixed(1)).join(', ')} MB; resident at most ${Math.round(peak / 1e6)} MB, with the bench itself`,
    },
  ];
}
