import assert from 'node:assert/strict';
import type { AddressInfo } from 'node:net';
import { test } from 'node:test';
import { Counter, Registry } from 'prom-client';
import { serveHealth } from './health-server.ts';
import { createLogger } from './logger.ts';

test('health, readiness, metrics, and nothing else', async () => {
  const registry = new Registry();
  new Counter({ name: 'asterism_test_total', help: 'test', registers: [registry] }).inc(3);
  let missing: string | undefined = 'starting';
  let broken: string | undefined;
  const server = await serveHealth({
    port: 0,
    host: '127.0.0.1',
    registry,
    missing: () => missing,
    broken: () => broken,
  });
  const get = async (path: string) => {
    const answer = await fetch(`http://127.0.0.1:${(server.address() as AddressInfo).port}${path}`);
    return [answer.status, await answer.text()] as const;
  };
  assert.deepEqual(await get('/healthz'), [200, 'ok\n']);
  assert.deepEqual(await get('/readyz'), [503, 'starting\n']);
  missing = undefined;
  assert.deepEqual(await get('/readyz'), [200, 'ready\n']);
  broken = 'the audit log cannot be written';
  assert.deepEqual(await get('/healthz'), [503, 'the audit log cannot be written\n']);
  assert.equal((await get('/'))[0], 404);
  const [status, metrics] = await get('/metrics?x=1');
  assert.equal(status, 200);
  assert.match(metrics, /^asterism_test_total 3$/m);
  assert.match(metrics, /^process_resident_memory_bytes /m);
  server.closeAllConnections();
  server.close();
});

test('secrets do not reach the log, whatever carries them', () => {
  const lines: string[] = [];
  const log = createLogger({
    name: 'x',
    level: 'nonsense',
    destination: { write: (line) => lines.push(line) },
  });
  log.info({ token: 'TOPSECRET', request: { kmsUri: 'TOPSECRET', id: 7 } }, 'call');
  log.debug({}, 'not at this level');
  assert.equal(lines.length, 1);
  assert.doesNotMatch(lines[0]!, /TOPSECRET/);
  assert.equal(JSON.parse(lines[0]!).request.id, 7);
});
