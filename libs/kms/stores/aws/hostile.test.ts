import assert from 'node:assert/strict';
import type { ServerResponse } from 'node:http';
import { describe, test } from 'node:test';
import { inspect } from 'node:util';
import {
  type ScriptedAnswer,
  type ScriptedHttp,
  type SeenRequest,
  scriptedHttp,
} from '@asterism/testkit/scripted-http';
import type { DekStore } from '../../store.ts';
import { open } from './store.ts';

// moto honours conditions but never has two writers at once, is never busy, and knows no expired credentials: here a
// server of our own answers what S3 answers then (S3 API reference, "Error responses"; user guide, "Conditional writes").

const SECRETS = ['secret/of+the=test-0123456789abcdef', 'TOKEN+of/the=session0123456789abcdef'] as const;
const CREDENTIALS = { accessKeyID: 'AKIAEXAMPLE', accessKey: SECRETS[0], sessionToken: SECRETS[1] };
const ETAG = '"0123456789abcdef0123456789abcdef"';
const CONTENT = new TextEncoder().encode('{"version":"asterism/v1"}');
const OBJECT: ScriptedAnswer = { status: 200, headers: { etag: ETAG }, body: CONTENT };
const WRITTEN: ScriptedAnswer = { status: 200, headers: { etag: ETAG } };

const refusing = (status: number, code: string): ScriptedAnswer => ({
  status,
  headers: { 'content-type': 'application/xml' },
  // S3 repeats what was signed, the session token among it, when a signature does not match.
  body: `<?xml version="1.0" encoding="UTF-8"?><Error><Code>${code}</Code><Message>${SECRETS[1]}</Message><StringToSign>${SECRETS[1]}</StringToSign><CanonicalRequest>x-amz-security-token:${SECRETS[1]}</CanonicalRequest></Error>`,
});
const HELD = refusing(412, 'PreconditionFailed');
const CONFLICT = refusing(409, 'ConditionalRequestConflict');

async function withServer(
  answer: (request: SeenRequest, number: number) => ScriptedAnswer,
  use: (store: DekStore, server: ScriptedHttp) => Promise<void>,
): Promise<void> {
  await using server = await scriptedHttp(answer);
  const store = await open({
    parameters: { region: 'eu-central-1', bucket: 'keys', prefix: 'a/', endpoint: server.endpoint },
    credentials: CREDENTIALS,
  });
  try {
    await use(store, server);
  } finally {
    await store.close();
  }
}

/** One answer after another, and then the last one again and again. */
const inTurn =
  (...answers: readonly ScriptedAnswer[]) =>
  (_: SeenRequest, number: number) =>
    answers[Math.min(number, answers.length - 1)]!;

async function refusal(work: Promise<unknown>): Promise<Error & { code: string }> {
  const error = await work.then(
    () => assert.fail('it was not refused'),
    (error: unknown) => error as Error & { code: string },
  );
  const shown = inspect(error, { depth: 20, showHidden: true, maxStringLength: null, maxArrayLength: null });
  for (const secret of SECRETS) assert.ok(!shown.includes(secret), `a credential is in: ${shown}`);
  assert.ok(error.message.length < 600, 'messages stay short');
  return error;
}

const namesOf = async (store: DekStore) => {
  const names: string[] = [];
  for await (const name of store.list()) names.push(name);
  return names;
};

describe('what S3 refuses has its own code', { concurrency: true }, () => {
  for (const [status, type, name, code] of [
    [503, 'SlowDown', 'KmsUnavailableError', 'ERR_STORE_THROTTLED'],
    [429, 'TooManyRequests', 'KmsUnavailableError', 'ERR_STORE_THROTTLED'],
    [503, 'ServiceUnavailable', 'KmsUnavailableError', 'ERR_STORE_UNAVAILABLE'],
    [500, 'InternalError', 'KmsUnavailableError', 'ERR_STORE_UNAVAILABLE'],
    [400, 'RequestTimeout', 'KmsUnavailableError', 'ERR_STORE_UNAVAILABLE'],
    [400, 'ExpiredToken', 'KmsError', 'ERR_STORE_CREDENTIALS'],
    [400, 'InvalidToken', 'KmsError', 'ERR_STORE_CREDENTIALS'],
    [403, 'InvalidAccessKeyId', 'KmsError', 'ERR_STORE_CREDENTIALS'],
    [403, 'SignatureDoesNotMatch', 'KmsError', 'ERR_STORE_CREDENTIALS'],
    [403, 'RequestTimeTooSkewed', 'KmsError', 'ERR_STORE_CREDENTIALS'],
    [403, 'AccessDenied', 'KmsError', 'ERR_STORE_DENIED'],
    [404, 'NoSuchBucket', 'KmsError', 'ERR_STORE_NOT_FOUND'],
    [301, 'PermanentRedirect', 'KmsError', 'ERR_STORE_SETTINGS'],
    [400, 'AuthorizationHeaderMalformed', 'KmsError', 'ERR_STORE_SETTINGS'],
    [404, 'SomethingNew', 'KmsError', 'ERR_STORE_ANSWER'],
    [400, 'SomethingNew', 'KmsError', 'ERR_STORE_ANSWER'],
  ] as const) {
    test(`${status} ${type}: ${code}`, async () => {
      await withServer(
        () => refusing(status, type),
        async (store) => {
          for (const ask of [
            () => store.get('key-1'),
            () => store.create('key-1', CONTENT),
            () => store.replace('key-1', CONTENT, ETAG),
            () => store.remove('key-1', ETAG),
            () => namesOf(store),
          ]) {
            const error = await refusal(ask());
            assert.equal(error.name, name);
            assert.equal(error.code, code);
          }
        },
      );
    });
  }
});

describe('conditions', () => {
  test('a create asks that there be nothing; a replace and a remove ask for the version', async () => {
    await withServer(inTurn(WRITTEN, HELD, WRITTEN, OBJECT, { status: 204 }), async (store, { requests }) => {
      assert.equal(await store.create('key-1', CONTENT), 'created');
      assert.equal(await store.replace('key-1', CONTENT, ETAG), 'replaced');
      assert.equal(await store.remove('key-1', ETAG), 'removed');
      assert.deepEqual(
        requests.map(({ method, path, headers }) => [
          method,
          path.replace(/\?.*/, ''),
          headers['if-none-match'],
          headers['if-match'],
        ]),
        [
          ['PUT', '/keys/a/key-1', '*', undefined],
          ['PUT', '/keys/a/key-1', '*', undefined],
          ['PUT', '/keys/a/key-1', undefined, ETAG],
          ['GET', '/keys/a/key-1', undefined, undefined],
          ['DELETE', '/keys/a/key-1', undefined, ETAG],
        ],
      );
      assert.deepEqual(requests[0]!.body, Buffer.from(CONTENT));
    });
  });

  test('a server that writes over what is there is found out at the first create', async () => {
    await withServer(
      () => WRITTEN,
      async (store, { requests }) => {
        const error = await refusal(store.create('key-1', CONTENT));
        assert.equal(error.code, 'ERR_STORE_ANSWER');
        assert.match(error.message, /If-None-Match/);
        assert.deepEqual(requests[1]!.body, requests[0]!.body, 'the second write changes nothing');
      },
    );
  });

  test('that is asked once only, and of a server that has shown it never again', async () => {
    await withServer(inTurn(WRITTEN, HELD, WRITTEN), async (store, { requests }) => {
      await store.create('key-1', CONTENT);
      await store.create('key-2', CONTENT);
      assert.equal(requests.length, 3);
    });
  });

  test('while others write the same object it is tried again, until one of them is there', async () => {
    await withServer(inTurn(CONFLICT, CONFLICT, HELD), async (store) => {
      assert.equal(await store.create('key-1', CONTENT), 'exists');
    });
    await withServer(inTurn(CONFLICT, WRITTEN, HELD), async (store) => {
      assert.equal(await store.create('key-1', CONTENT), 'created');
    });
    await withServer(inTurn(CONFLICT, HELD), async (store) => {
      assert.equal(await store.replace('key-1', CONTENT, ETAG), 'changed');
    });
    await withServer(inTurn(OBJECT, CONFLICT, HELD), async (store) => {
      assert.equal(await store.remove('key-1', ETAG), 'changed');
    });
  });

  test('a conflict that does not end is an error that can be tried again', async () => {
    await withServer(
      () => CONFLICT,
      async (store) => {
        const error = await refusal(store.create('key-1', CONTENT));
        assert.equal(error.name, 'KmsUnavailableError');
        assert.equal(error.code, 'ERR_STORE_UNAVAILABLE');
      },
    );
  });

  test('an object that went away is changed for a replace and removed for a remove', async () => {
    const gone = refusing(404, 'NoSuchKey');
    await withServer(
      () => gone,
      async (store) => {
        assert.equal(await store.replace('key-1', CONTENT, ETAG), 'changed');
        assert.equal(await store.remove('key-1', ETAG), 'removed');
        // Of a create it makes no sense.
        assert.equal((await refusal(store.create('key-1', CONTENT))).code, 'ERR_STORE_ANSWER');
      },
    );
    await withServer(inTurn(OBJECT, gone), async (store) => {
      assert.equal(await store.remove('key-1', ETAG), 'removed');
    });
  });

  test('of another version nothing is removed, even where the server would', async () => {
    await withServer(inTurn(OBJECT, { status: 204 }), async (store, { requests }) => {
      assert.equal(await store.remove('key-1', '"another"'), 'changed');
      assert.deepEqual(
        requests.map(({ method }) => method),
        ['GET'],
      );
    });
  });
});

describe('answers to a get that make no sense', { concurrency: true }, () => {
  for (const [what, answer] of [
    // None of these may pass for a key that was never made.
    [
      'a page of a proxy that says 404',
      { status: 404, headers: { 'content-type': 'text/html' }, body: '<p>?</p>' },
    ],
    ['404 with nothing', { status: 404 }],
    ['a redirect to elsewhere', { status: 302, headers: { location: 'http://127.0.0.1:1/' } }],
    ['an object without ETag', { status: 200, body: CONTENT }],
    ['an ETag of another kind', { status: 200, headers: { etag: 'a b' }, body: CONTENT }],
    [
      'a body that is not what its checksum says',
      { ...OBJECT, headers: { etag: ETAG, 'x-amz-checksum-crc32': 'AAAAAA==' } },
    ],
    ['an object that is too large', { ...OBJECT, body: new Uint8Array(64 * 1024 + 1) }],
  ] as const satisfies [string, ScriptedAnswer][]) {
    test(what, async () => {
      await withServer(
        () => answer,
        async (store) => {
          assert.equal((await refusal(store.get('key-1'))).code, 'ERR_STORE_ANSWER');
        },
      );
    });
  }
});

describe('lists', { concurrency: true }, () => {
  const page = (names: readonly string[], token?: string): ScriptedAnswer => ({
    status: 200,
    headers: { 'content-type': 'application/xml' },
    body: `<?xml version="1.0" encoding="UTF-8"?><ListBucketResult><IsTruncated>${token !== undefined}</IsTruncated>${
      token ? `<NextContinuationToken>${token}</NextContinuationToken>` : ''
    }<EncodingType>url</EncodingType>${names.map((name) => `<Contents><Key>${name}</Key></Contents>`).join('')}</ListBucketResult>`,
  });

  test('page after page, with the names that are ours', async () => {
    const pages = [
      page(['a/key-1', 'a/%01', 'a/%zz', 'b/key-2'], 'next'),
      page([], 'last'),
      page(['a/key-3']),
    ];
    await withServer(inTurn(...pages), async (store, { requests }) => {
      assert.deepEqual(await namesOf(store), ['key-1', 'key-3']);
      const query = (number: number) => new URL(requests[number]!.path, 'http://x').searchParams;
      assert.equal(query(0).get('prefix'), 'a/');
      assert.equal(query(0).get('continuation-token'), null);
      assert.equal(query(1).get('continuation-token'), 'next');
      assert.equal(query(2).get('continuation-token'), 'last');
    });
  });

  for (const [what, pages] of [
    ['it goes round in circles', [page(['a/key-1'], 'x'), page(['a/key-2'], 'y'), page(['a/key-1'], 'x')]],
    ['it does not go on', [page(['a/key-1'], 'x'), page(['a/key-2'], 'x')]],
    ['there is more, but not where', [page(['a/key-1'], '')]],
    ['one name twice', [page(['a/key-1', 'a/key-1'])]],
    ['not XML', [{ status: 200, body: '<ListBucketResult><Contents>' }]],
    ['larger than any page', [page(Array.from({ length: 100_000 }, (_, i) => `a/key-${i + 1e9}`))]],
  ] as const) {
    test(what, async () => {
      await withServer(inTurn(...pages), async (store) => {
        assert.equal((await refusal(namesOf(store))).code, 'ERR_STORE_ANSWER');
      });
    });
  }
});

describe('servers that do not behave', { concurrency: true }, () => {
  const start = (response: ServerResponse, length: number) =>
    response.writeHead(200, { etag: ETAG, 'content-length': length });

  test('a body that does not end is cut off', async () => {
    let sent = 0;
    await withServer(
      () => (response) => {
        const chunk = Buffer.alloc(64 * 1024, 'x');
        start(response, 1 << 30);
        const more = () => {
          if (response.destroyed || sent > 1 << 27) return;
          sent += chunk.length;
          response.write(chunk, () => setImmediate(more));
        };
        more();
      },
      async (store) => {
        assert.equal((await refusal(store.get('key-1'))).code, 'ERR_STORE_ANSWER');
      },
    );
    assert.ok(sent < 1 << 26, `${sent} bytes were taken`);
  });

  test('a body that breaks off is no object', async () => {
    await withServer(
      () => (response) => {
        start(response, 1000).write('{"version":');
        setTimeout(() => response.destroy(), 20);
      },
      async (store) => {
        assert.equal((await refusal(store.get('key-1'))).code, 'ERR_STORE_UNAVAILABLE');
      },
    );
  });

  for (const [what, hang] of [
    ['no answer', () => {}],
    ['half an answer', (response: ServerResponse) => start(response, 1000).write('{"version":')],
  ] as const) {
    test(`${what}: it ends in time, and at once when it is given up`, async () => {
      await withServer(
        () => hang,
        async (store) => {
          const controller = new AbortController();
          const givenUp = store.get('key-1', controller.signal);
          setTimeout(() => controller.abort(new Error('enough')), 100);
          await assert.rejects(givenUp, /enough/);
          assert.equal((await refusal(store.get('key-1'))).code, 'ERR_STORE_UNAVAILABLE');
        },
      );
    });
  }
});

test('settings that must not be used are refused before anything is sent', async () => {
  for (const [endpoint, credentials] of [
    ['http://s3.example:9000', CREDENTIALS],
    ['https://s3.example', {}],
    ['https://s3.example', { accessKeyID: 'AKIAEXAMPLE' }],
  ] as const) {
    const parameters = { region: 'eu-central-1', bucket: 'keys', endpoint };
    assert.equal((await refusal(open({ parameters, credentials }))).code, 'ERR_STORE_SETTINGS');
  }
});
