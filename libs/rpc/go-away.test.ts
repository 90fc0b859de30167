import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect } from 'node:http2';
import { type AddressInfo, createServer } from 'node:net';
import { test } from 'node:test';
import fc from 'fast-check';
import { goAway, readGoAway } from './go-away.ts';

test('HTTP/2 of Node understands the farewell', async () => {
  const server = createServer((socket) =>
    socket.on('error', () => {}).end(goAway('evidence refused: ERR_PCR')),
  );
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const session = connect(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
  session.on('error', () => {});
  const [code, , data] = await once(session, 'goaway');
  assert.equal(code, 0x0c);
  assert.equal(data.toString(), 'evidence refused: ERR_PCR');
  session.destroy();
  server.close();
});

test('what is written is read; anything else is HTTP/2’s own', () => {
  assert.equal(readGoAway(goAway('why')), 'why');
  assert.equal(readGoAway(goAway('x'.repeat(1000))), 'x'.repeat(256));
  assert.equal(readGoAway(goAway('a\nb\u001b[31m')), 'a?b?[31m');
  const whole = goAway('why');
  for (let length = 0; length < whole.length; length++)
    assert.equal(readGoAway(whole.subarray(0, length)), undefined);
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 60 }), (bytes) => {
      readGoAway(bytes);
    }),
  );
});
