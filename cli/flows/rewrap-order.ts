import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { AsterismError, UnreachableError } from '@asterism/errors/errors';
import {
  parseRotationStatus,
  ROTATION_STATUS,
  type RotationStatus,
  renderRotationStatus,
} from '@asterism/kms/rotation-status';
import { type DataObject, getIfThere } from '@asterism/kubernetes/api';
import type { AdminApi } from './admin-api.ts';

const MAPS = '/api/v1/namespaces/kube-system/configmaps';
const PATH = `${MAPS}/${ROTATION_STATUS}`;
/** No replica has said anything for so long: none carries the order out. */
const SILENCE_MS = 120_000;
const MAX_RUNS = 5;

/**
 * Has the KeyServices re-wrap all stored keys, until one run finds that there is nothing left to re-wrap: a key that was
 * made by the old generation while the first run was on its way is not missed.
 *
 * @returns stored keys that are re-wrapped and proven
 * @throws AsterismError ERR_REWRAP some keys could not be re-wrapped; nothing is lost
 * @throws UnreachableError no KeyService carries it out
 */
export async function rewrapKeys(
  api: AdminApi,
  generation: number,
  signal: AbortSignal,
  onState: (text: string) => void,
): Promise<number> {
  for (let run = 0; run < MAX_RUNS; run++) {
    const { rewrapped, alreadyDone } = await oneRun(api, generation, signal, onState);
    if (rewrapped === 0) return alreadyDone;
    onState(`${rewrapped + alreadyDone} keys re-wrapped; whether any was left is looked at`);
  }
  throw new AsterismError(
    'ERR_REWRAP',
    `after ${MAX_RUNS} runs there are still keys that are wrapped by the old key encryption key: is there a KeyService that makes them? ` +
      'Nothing is lost, both stay in use; see: kubectl -n kube-system logs -l app=key-service',
  );
}

/** An order to the same generation that is under way is waited for; one that has ended is given anew. */
async function oneRun(
  api: AdminApi,
  generation: number,
  signal: AbortSignal,
  onState: (text: string) => void,
): Promise<RotationStatus> {
  const order = await giveOrder(api, generation, signal);
  let last = '';
  let heard = performance.now();
  for (;;) {
    const status = await read(api, signal);
    if (status?.value.order !== order)
      throw new AsterismError(
        'ERR_REWRAP',
        'somebody else has just ordered a rotation; run this again when it has ended',
      );
    const { state, total, rewrapped, alreadyDone, failed, error, renewed } = status.value;
    if (state === 'done') return status.value;
    if (state === 'failed') {
      throw new AsterismError(
        'ERR_REWRAP',
        `${failed > 0 ? `${failed} of ${total} keys were not re-wrapped` : 'the keys were not re-wrapped'}: ${error}. ` +
          'Nothing is lost, both key encryption keys stay in use; mend the cause and run this again',
      );
    }
    if (state + renewed !== last) heard = performance.now();
    last = state + renewed;
    onState(state === 'ordered' ? 'ordered' : `${rewrapped + alreadyDone} keys re-wrapped and proven`);
    if (performance.now() - heard > SILENCE_MS) {
      throw new UnreachableError(
        'no KeyService carries out the order to re-wrap keys; see: kubectl -n kube-system logs -l app=key-service',
        { code: 'ERR_REWRAP_SILENT' },
      );
    }
    await sleep(1000, undefined, { signal }).catch(() => signal.throwIfAborted());
  }
}

async function giveOrder(api: AdminApi, generation: number, signal: AbortSignal): Promise<string> {
  const order = randomUUID();
  const value = parseRotationStatus({ order, generation, state: 'ordered' });
  const present = await read(api, signal);
  if (present === undefined) {
    const metadata = { name: ROTATION_STATUS, namespace: 'kube-system' };
    const object = { apiVersion: 'v1', kind: 'ConfigMap', metadata, data: renderRotationStatus(value) };
    await api.call('POST', MAPS, object, signal);
    return order;
  }
  const { state, generation: before, order: running } = present.value;
  if (before === generation && (state === 'ordered' || state === 'running')) return running;
  await api.call('PUT', PATH, { ...present.object, data: renderRotationStatus(value) }, signal);
  return order;
}

async function read(api: AdminApi, signal: AbortSignal) {
  const object = await getIfThere<DataObject>(api, PATH, signal);
  return object && { object, value: parseRotationStatus(object.data) };
}
