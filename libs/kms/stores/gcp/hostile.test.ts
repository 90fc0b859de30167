import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { ScriptedAnswer, SeenRequest } from '@asterism/testkit/scripted-http';
import { answer, hostileGoogle, printed, refusal, TOKEN } from '../../google.fixture.ts';
import { open } from './store.ts';

const NAMES = '/storage/v1/b/keys/o?delimiter=%2F&fields=items%28name%29%2CnextPageToken&maxResults=';

async function against(
  script: (request: SeenRequest) => ScriptedAnswer,
  options: { timeoutMs?: number } = {},
) {
  const server = await hostileGoogle(script);
  const store = await open(
    {
      parameters: { projectID: 'project', bucket: 'keys', prefix: 'a/', endpoint: server.endpoint },
      credentials: { serviceAccountKey: server.serviceAccountKey },
    },
    options,
  );
  return {
    server,
    store,
    async [Symbol.asyncDispose]() {
      await store.close();
      await server[Symbol.asyncDispose]();
    },
  };
}

const code = (expected: string) => (error: unknown) => {
  assert.doesNotMatch(printed(error), new RegExp(`${TOKEN}|PRIVATE KEY|eyJ`));
  assert.equal((error as { code?: string }).code, expected);
  return true;
};

const object = (headers: Record<string, string>, body = 'bytes') => ({ status: 200, headers, body });

async function all(names: AsyncIterable<string>): Promise<string[]> {
  const found: string[] = [];
  for await (const name of names) found.push(name);
  return found;
}

describe('a Cloud Storage that lies', () => {
  test('every write and removal names the generation it is for', async () => {
    await using it = await against(() => answer(200, '{}'));
    await it.store.create('key-1', new Uint8Array(3));
    await it.store.replace('key-1', new Uint8Array(3), '1700000000000001');
    await it.store.remove('key-1', '1700000000000001');
    const upload = 'POST /upload/storage/v1/b/keys/o?uploadType=media&name=a%2Fkey-1&ifGenerationMatch=';
    assert.deepEqual(it.server.calls(), [
      `${upload}0&fields=generation`,
      `${upload}1700000000000001&fields=generation`,
      'DELETE /storage/v1/b/keys/o/a%2Fkey-1?ifGenerationMatch=1700000000000001',
    ]);
  });

  test('an object without a generation, or with one that is none', async () => {
    for (const headers of [{}, { 'x-goog-generation': '0' }, { 'x-goog-generation': `1 ${TOKEN}` }]) {
      await using it = await against(() => object(headers));
      await assert.rejects(it.store.get('key-1'), code('ERR_STORE_ANSWER'));
    }
  });

  test('an object that is too large, by one byte and without end', async () => {
    await using one = await against(() => object({ 'x-goog-generation': '1' }, 'x'.repeat(64 * 1024 + 1)));
    await assert.rejects(one.store.get('key-1'), code('ERR_STORE_ANSWER'));
    await using endless = await against(() => (response) => {
      response.writeHead(200, { 'x-goog-generation': '1' });
      const write = () => {
        while (response.writable && response.write('x'.repeat(1 << 16))) {}
      };
      response.on('drain', write).on('error', () => {});
      write();
    });
    await assert.rejects(endless.store.get('key-1'), code('ERR_STORE_ANSWER'));
  });

  test('a truncated object is not one', async () => {
    await using it = await against(() => (response) => {
      response.writeHead(200, { 'x-goog-generation': '1', 'content-length': '100' });
      response.write('half', () => response.destroy());
    });
    await assert.rejects(it.store.get('key-1'), code('ERR_STORE_UNAVAILABLE'));
  });

  test('that there is no object is believed only of a bucket that is there', async () => {
    await using bucket = await against(({ path }) =>
      path.startsWith(NAMES) ? answer(200, {}) : refusal(404, 'NOT_FOUND', TOKEN),
    );
    assert.equal(await bucket.store.get('key-1'), undefined);
    assert.equal(await bucket.store.replace('key-1', new Uint8Array(1), '5'), 'changed');
    assert.equal(await bucket.store.remove('key-1', '5'), 'removed');
    await assert.rejects(bucket.store.create('key-1', new Uint8Array(1)), code('ERR_STORE_ANSWER'));
    await using none = await against(() => refusal(404, 'NOT_FOUND', TOKEN));
    await assert.rejects(none.store.get('key-1'), code('ERR_STORE_NOT_FOUND'));
  });

  test('lists: the same page for ever, pages that are none, a page without end', async () => {
    await using same = await against(() =>
      answer(200, { items: [{ name: 'a/key-1' }], nextPageToken: 'next' }),
    );
    await assert.rejects(all(same.store.list()), code('ERR_STORE_ANSWER'));
    for (const body of [
      '',
      '[]',
      'null',
      '{"items": 5}',
      '{"items": [{}]}',
      '{"items": [null]}',
      '{"nextPageToken": ""}',
    ]) {
      await using it = await against(() => answer(200, body));
      await assert.rejects(all(it.store.list()), code('ERR_STORE_ANSWER'), body);
    }
    const deep = `{"items": [${'['.repeat(100_000)}`;
    await using nested = await against(() => answer(200, deep));
    await assert.rejects(all(nested.store.list()), code('ERR_STORE_ANSWER'));
  });

  test('lists: names that are none of ours are left out', async () => {
    const items = [
      'a/key-1',
      'b/key-2',
      'a/../key-3',
      'a/',
      'a/key-4/x',
      'key-5',
      `a/${'x'.repeat(129)}`,
      'a/key-6\n',
    ];
    await using it = await against(() => answer(200, { items: items.map((name) => ({ name })) }));
    assert.deepEqual(await all(it.store.list()), ['key-1']);
  });

  test('a create whose answer was lost meets its own object', async () => {
    let asked = 0;
    await using it = await against(() =>
      asked++ === 0 ? (response) => response.destroy() : refusal(412, 'FAILED_PRECONDITION'),
    );
    assert.equal(await it.store.create('key-1', new Uint8Array(1)), 'exists');
  });

  test('refusals, with what we sent in their messages', async () => {
    for (const [status, expected] of [
      [400, 'ERR_STORE_ANSWER'],
      [401, 'ERR_STORE_CREDENTIALS'],
      [403, 'ERR_STORE_DENIED'],
      [307, 'ERR_STORE_ANSWER'],
      [429, 'ERR_STORE_THROTTLED'],
      [502, 'ERR_STORE_UNAVAILABLE'],
    ] as const) {
      await using it = await against(({ headers }) =>
        refusal(status, `${headers.authorization}`, `${headers.authorization}`),
      );
      await assert.rejects(it.store.get('key-1'), code(expected));
      await assert.rejects(it.store.create('key-1', new Uint8Array(1)), code(expected));
      await assert.rejects(it.store.remove('key-1', '1'), code(expected));
      await assert.rejects(all(it.store.list()), code(expected));
    }
  });

  test('a server that hangs, and a signal that ends it', async () => {
    await using it = await against(() => () => {}, { timeoutMs: 300 });
    await assert.rejects(it.store.get('key-1'), code('ERR_STORE_UNAVAILABLE'));
    const controller = new AbortController();
    const listing = all(it.store.list(controller.signal));
    setTimeout(() => controller.abort(new Error('enough')), 50);
    await assert.rejects(listing, /enough/);
  });

  test('an endpoint without credentials of its own, or in the clear', async () => {
    await using server = await hostileGoogle(() => answer(200, '{}'));
    const parameters = { projectID: 'project', bucket: 'keys', endpoint: server.endpoint };
    await assert.rejects(open({ parameters, credentials: {} }), code('ERR_STORE_SETTINGS'));
    const clear = { ...parameters, endpoint: 'http://storage.internal' };
    const credentials = { serviceAccountKey: server.serviceAccountKey };
    await assert.rejects(open({ parameters: clear, credentials }), code('ERR_STORE_SETTINGS'));
    assert.deepEqual(server.requests, []);
  });
});
