import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type AddressInfo, createServer } from 'node:net';
import { test } from 'node:test';
import type { Metadata } from '@asterism/metadata/types';
import type { MachineTpm } from '@asterism/runtime/machine-tpm';
import { fakeIssuer, fakeVerifier } from '@asterism/testkit/fake-attestation';
import { COMPARED_PCRS, JoinPeers } from './join-peers.ts';

test('the signal ends the wait for a JoinService that accepts connections and says nothing', {
  timeout: 60_000,
}, async () => {
  const silent = createServer((socket) => void accepted.push(socket));
  const accepted: { destroy(): void }[] = [];
  silent.listen(0, '127.0.0.1');
  await once(silent, 'listening');
  const pcrs = new Map(COMPARED_PCRS.map((index) => [index, new Uint8Array(32)]));
  const peers = new JoinPeers({
    metadata: {} as Metadata,
    tpm: { readPcrs: async () => pcrs } as unknown as MachineTpm,
    issuer: fakeIssuer(),
    verifiersFor: () => [fakeVerifier()],
    port: (silent.address() as AddressInfo).port,
    // Longer than this test may take.
    timeoutMs: 600_000,
  });
  const stop = new AbortController();
  silent.once('connection', () => stop.abort());
  await assert.rejects(
    peers.ask('127.0.0.1', async () => assert.fail('was called'), stop.signal),
    { code: 'ERR_UNREACHABLE' },
  );
  for (const socket of accepted) socket.destroy();
  silent.close();
});
