import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { freePort } from '@asterism/testkit/free-port';
import type { Script } from './scripted-server.fixture.ts';
import { OPERATION } from './tags.ts';
import { CONTEXT, DOWN, fails, honest, isLike, key, scripted, using } from './trial.fixture.ts';

describe('connections', () => {
  test('many calls at once share one, and ask for the key once', async () => {
    await scripted(honest, async (kek, server) => {
      await Promise.all(Array.from({ length: 50 }, () => kek.wrap(key, CONTEXT)));
      assert.equal(server.connections, 1);
      assert.equal(server.asked.filter((operation) => operation === OPERATION.locate).length, 1);
    });
  });

  test('one that the server ended while it was idle is made anew', async () => {
    await scripted(honest, async (kek, server) => {
      const wrapped = await kek.wrap(key, CONTEXT);
      // Ends it as the next request comes: the worst moment.
      let ended = false;
      server.script = (asked, socket) => {
        if (ended) return honest(asked, socket);
        ended = true;
        socket.destroy();
        return undefined;
      };
      assert.deepEqual(await kek.unwrap(wrapped, CONTEXT), key);
      assert.equal(server.connections, 2);
    });
  });

  test('a signal ends a call that waits, and one that waits behind it; the next call works', async () => {
    const silent: Script = () => undefined;
    await scripted(honest, async (kek, server) => {
      const wrapped = await kek.wrap(key, CONTEXT);
      server.script = silent;
      const stop = new AbortController();
      const calls = [kek.unwrap(wrapped, CONTEXT, stop.signal), kek.status(stop.signal)];
      const settled = Promise.allSettled(calls);
      setTimeout(() => stop.abort(new Error('enough')), 50);
      for (const result of await settled)
        assert.equal(result.status === 'rejected' && result.reason.message, 'enough');
      server.script = honest;
      assert.deepEqual(await kek.unwrap(wrapped, CONTEXT), key);
    });
  });

  test('a server that does not answer: unavailable after ten seconds, whoever waits', async () => {
    await scripted(honest, async (kek, server) => {
      const wrapped = await kek.wrap(key, CONTEXT);
      server.script = () => undefined;
      const results = await Promise.allSettled([
        kek.unwrap(wrapped, CONTEXT),
        kek.unwrap(wrapped, CONTEXT),
        kek.status(),
      ]);
      for (const result of results) {
        assert.equal(result.status, 'rejected');
        isLike(result.reason, DOWN);
        assert.match(result.reason.message, /did not answer within 10 seconds/);
      }
      server.script = honest;
      assert.deepEqual(await kek.unwrap(wrapped, CONTEXT), key);
    });
  });

  test('nobody listens: unavailable', async () => {
    const port = await freePort();
    await using(port, (kek) => fails(kek.wrap(key, CONTEXT), DOWN));
  });

  test('after close nothing is sent', async () => {
    await scripted(honest, async (kek, server) => {
      await kek.close();
      await fails(kek.wrap(key, CONTEXT), { code: 'ERR_KMS_SETTINGS' });
      assert.equal(server.connections, 0);
    });
  });
});
