import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { fromHex, toUtf8 } from '@asterism/bytes/encoding';
import { KEY_ID } from './honest-script.fixture.ts';
import { bytes, text } from './items.ts';
import { answerTo, type Script } from './scripted-server.fixture.ts';
import { OPERATION, TAG } from './tags.ts';
import {
  but,
  CONTEXT,
  DOWN,
  type Expected,
  fails,
  honest,
  key,
  NONSENSE,
  scripted,
} from './trial.fixture.ts';

const header = (length: string) => fromHex(`42007b01${length}`);

describe('answers that are none', () => {
  const answer = honest;
  for (const [what, expected, script] of [
    ['no TTLV', NONSENSE, () => toUtf8('HTTP/1.1 400 Bad Request\r\n\r\n')],
    ['zeros', NONSENSE, () => new Uint8Array(64)],
    ['a length of 4 GiB', NONSENSE, () => header('ffffffff')],
    ['a length just above the bound', NONSENSE, () => header('0000fff9')],
    ['a header, and nothing of the rest', NONSENSE, () => header('00000000')],
    [
      'a good header with garbage',
      NONSENSE,
      () => Buffer.concat([header('00000010'), Buffer.alloc(16, 0xee)]),
    ],
    [
      'an answer with bytes after it',
      NONSENSE,
      (asked, socket) => Buffer.concat([answer(asked, socket)!, Buffer.of(0)]),
    ],
    [
      'two answers',
      NONSENSE,
      (asked, socket) => Buffer.concat([answer(asked, socket)!, answer(asked, socket)!]),
    ],
    [
      'the answer to another request',
      NONSENSE,
      (asked, socket) => answer({ ...asked, id: Buffer.alloc(8) }, socket),
    ],
    [
      'the answer to another operation',
      NONSENSE,
      ({ id }) => answerTo({ id, operation: OPERATION.decrypt } as never, []),
    ],
    [
      'an answer about another key',
      NONSENSE,
      (asked) => answerTo(asked, [text(TAG.uniqueIdentifier, 'other')]),
    ],
    [
      'half an answer, and the end',
      DOWN,
      (asked, socket) => void socket.end(answer(asked, socket)!.subarray(0, 40)),
    ],
    ['the end at once', DOWN, (_, socket) => void socket.destroy()],
  ] as const satisfies readonly (readonly [string, Expected, Script])[]) {
    test(`${what}: the call fails, and the next one works`, async () => {
      await scripted(but('encrypt', script), async (kek, server) => {
        await fails(kek.wrap(key, CONTEXT), expected);
        server.script = honest;
        assert.deepEqual(await kek.unwrap(await kek.wrap(key, CONTEXT), CONTEXT), key);
      });
    });
  }

  test('an answer in single bytes is put together', async () => {
    const slow: Script = (asked, socket) => {
      for (const byte of honest(asked, socket)!) socket.write(Uint8Array.of(byte));
      return undefined;
    };
    await scripted(slow, async (kek) => {
      assert.deepEqual(await kek.unwrap(await kek.wrap(key, CONTEXT), CONTEXT), key);
    });
  });

  test('an answer that nobody asked for ends the connection, and the next call has another', async () => {
    await scripted(honest, async (kek, server) => {
      const wrapped = await kek.wrap(key, CONTEXT);
      server.script = (asked, socket) => {
        setImmediate(() => socket.write(honest(asked, socket)!));
        return honest(asked, socket);
      };
      await kek.unwrap(wrapped, CONTEXT);
      await new Promise((resolve) => setTimeout(resolve, 50));
      server.script = honest;
      await kek.unwrap(wrapped, CONTEXT);
      assert.equal(server.connections, 2);
    });
  });

  test('unwrapped to another length: refused', async () => {
    await scripted(honest, async (kek, server) => {
      const wrapped = await kek.wrap(key, CONTEXT);
      server.script = but('decrypt', (asked) =>
        answerTo(asked, [text(TAG.uniqueIdentifier, KEY_ID), bytes(TAG.data, new Uint8Array(16))]),
      );
      await fails(kek.unwrap(wrapped, CONTEXT), NONSENSE);
    });
  });
});
