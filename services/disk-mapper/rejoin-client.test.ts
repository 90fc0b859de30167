import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PolicyError, UnreachableError } from '@asterism/errors/errors';
import type { JoinPeers } from '@asterism/rpc/join-peers';
import type { Attempt } from './audit.ts';
import { rejoin } from './rejoin-client.ts';
import type { Unlocker } from './unlock.ts';

test('of the JoinServices that were asked those are refused whose keys were, and the next ones are asked', async () => {
  const log = { info() {} };
  const refused: unknown[][] = [];
  const audit = {
    refused: (by: Attempt, reason: string) => void refused.push([by.event, by.address, reason]),
  };
  const given: Uint8Array[] = [];
  const peers = {
    addresses: async () => ['10.0.0.1', '10.0.0.2', '10.0.0.3'],
    ask: async (address: string, call: (peer: object) => Promise<void>) => {
      if (address === '10.0.0.1') throw new UnreachableError('not there');
      const ticket = {
        stateDiskKey: new Uint8Array(32).fill(1),
        nextStateDiskKey: new Uint8Array(32).fill(3),
        measurementSecret: new Uint8Array(32).fill(2),
      };
      given.push(...Object.values(ticket));
      await call({ client: { issueRejoinTicket: async () => ticket }, verdict: {}, timeoutMs: 1000 });
    },
  };
  const granted: Attempt[] = [];
  const unlocker = {
    async unlock(_keys: object, by: Attempt) {
      if (by.address === '10.0.0.2') throw new PolicyError('ERR_PEER_CLUSTER', 'of another cluster');
      granted.push(by);
    },
  };
  const metadata = { self: async () => ({}) };
  await rejoin(
    {
      diskUuid: 'u',
      metadata: metadata as never,
      peers: peers as unknown as JoinPeers,
      unlocker: unlocker as unknown as Unlocker,
      audit,
      log,
    },
    new AbortController().signal,
  );
  assert.deepEqual(refused, [['rejoin', '10.0.0.2', 'ERR_PEER_CLUSTER']]);
  assert.deepEqual(granted, [{ event: 'rejoin', address: '10.0.0.3' }]);
  assert.equal(given.length, 6);
  for (const key of given) assert.deepEqual(key, new Uint8Array(32), 'keys are wiped, used or not');
});
