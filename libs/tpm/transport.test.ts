import assert from 'node:assert/strict';
import { execFile, spawn, spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import { toHex } from '@asterism/bytes/encoding';
import { AsterismError, ParseError, UnreachableError } from '@asterism/errors/errors';
import { startSwtpm } from '@asterism/testkit/swtpm';
import { temporaryFolder } from '@asterism/testkit/temporary-folder';
import { TpmError } from './response-code.ts';
import { takeTurn } from './turns.ts';
import { withTpm } from './with-tpm.ts';

const run = promisify(execFile);

/** Something at a socket that answers each command in its own way. */
async function hostileTpm(path: string, answer: (socket: Socket, command: Uint8Array) => void) {
  const server: Server = createServer((socket) => {
    socket.on('error', () => {});
    socket.on('data', (command: Uint8Array) => answer(socket, command));
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  return { [Symbol.asyncDispose]: () => new Promise<void>((resolve) => server.close(() => resolve())) };
}

const response = (code: number, body: readonly number[] = [], size = 10 + body.length) =>
  Uint8Array.of(0x80, 0x01, ...be32(size), ...be32(code), ...body);
const be32 = (value: number) => [value >>> 24, (value >>> 16) & 255, (value >>> 8) & 255, value & 255];

describe('a TPM that misbehaves', () => {
  for (const [name, answer, check] of [
    ['announces 4 GiB', (s: Socket) => s.write(response(0, [], 0xffffffff)), 'ERR_TPM_UNREACHABLE'],
    ['announces less than a header', (s: Socket) => s.write(response(0, [], 9)), 'ERR_TPM_UNREACHABLE'],
    ['sends more than it announced', (s: Socket) => s.write(response(0, [1, 2], 11)), 'ERR_TPM_UNREACHABLE'],
    ['closes in the middle', (s: Socket) => s.end(response(0, [], 20)), 'ERR_TPM_UNREACHABLE'],
    ['sends half and stops', (s: Socket) => s.write(response(0, [], 20)), 'ERR_TPM_TIMEOUT'],
    ['says nothing', () => {}, 'ERR_TPM_TIMEOUT'],
    ['gives less than its fields say', (s: Socket) => s.write(response(0, [0, 9, 1])), 'ERR_PARSE'],
  ] as const) {
    it(`${name}: refused in time`, async () => {
      await using folder = await temporaryFolder();
      const path = folder.file('tpm');
      await using _server = await hostileTpm(path, answer);
      const timeoutMs = check === 'ERR_TPM_TIMEOUT' ? 400 : 20_000;
      const started = performance.now();
      await assert.rejects(
        withTpm(`swtpm:${path}`, (tpm) => tpm.getRandom(9), { timeoutMs }),
        (error) => error instanceof AsterismError && error.code === check,
      );
      assert.ok(performance.now() - started < 10_000);
    });
  }

  it('is asked again when it says RETRY, but not for ever', async () => {
    await using folder = await temporaryFolder();
    let commands = 0;
    let busyFor = 3;
    await using _server = await hostileTpm(folder.file('tpm'), (socket) => {
      commands++;
      socket.write(commands <= busyFor ? response(0x922) : response(0, [0, 2, 7, 8]));
    });
    const random = () => withTpm(`swtpm:${folder.file('tpm')}`, (tpm) => tpm.getRandom(2));
    assert.deepEqual(await random(), Uint8Array.of(7, 8));
    assert.equal(commands, 4);
    busyFor = 1e9;
    await assert.rejects(random(), (error) => error instanceof TpmError && error.responseCode === 0x922);
    assert.ok(commands < 50);
  });
});

describe('addresses', () => {
  for (const address of ['', 'swtpm:', 'swtpm:relative', 'tcp:1.2.3.4', '/dev/tpm0', 'device:', 'xswtpm:/x'])
    it(`refuses '${address}'`, () =>
      assert.rejects(
        withTpm(address, async () => {}),
        { code: 'ERR_TPM_ADDRESS' },
      ));
  for (const address of ['swtpm:/nonexistent/x', 'device:/nonexistent/x', 'device:/dev/null'])
    it(`says that there is no TPM at ${address}`, () =>
      assert.rejects(
        withTpm(address, (tpm) => tpm.getRandom(1)),
        { code: 'ERR_TPM_UNREACHABLE' },
      ));
});

describe('turns', () => {
  it('are given first come, first served, and lost ones are skipped', async () => {
    const order: number[] = [];
    const first = await takeTurn('a', 30_000);
    const others = [1, 2, 3].map(async (n) => {
      const end = await takeTurn('a', n === 2 ? 20 : 30_000);
      order.push(n);
      end();
    });
    await assert.rejects(others[1]!, { code: 'ERR_TPM_TIMEOUT' });
    first();
    await Promise.all([others[0], others[2]]);
    assert.deepEqual(order, [1, 3]);
    (await takeTurn('a', 0))();
  });

  it('of one address do not wait for another', async () => {
    const end = await takeTurn('b', 10);
    (await takeTurn('c', 10))();
    end();
  });

  it('are not promised to more than 256', async () => {
    const end = await takeTurn('d', 30_000);
    const waiting = Array.from({ length: 256 }, () => takeTurn('d', 30_000).then((next) => next()));
    await assert.rejects(takeTurn('d', 30_000), { code: 'ERR_TPM_BUSY' });
    end();
    await Promise.all(waiting);
  });
});

describe('swtpm, which serves one connection at a time', () => {
  it('serves ten processes with twenty uses each, none refused', async () => {
    await using swtpm = await startSwtpm();
    const program = `
      import { withTpm } from ${JSON.stringify(new URL('./with-tpm.ts', import.meta.url).href)};
      for (let i = 0; i < 20; i++) await withTpm(process.argv[1], (tpm) => tpm.getRandom(8));
      console.log('done');`;
    const results = await Promise.all(
      Array.from({ length: 10 }, () =>
        run(process.execPath, ['--input-type=module', '-e', program, swtpm.address], { timeout: 60_000 }),
      ),
    );
    for (const { stdout } of results) assert.equal(stdout, 'done\n');
  });

  it('serves 200 callers of one process', async () => {
    await using swtpm = await startSwtpm();
    const values = await Promise.all(
      Array.from({ length: 200 }, () => withTpm(swtpm.address, (tpm) => tpm.getRandom(16))),
    );
    assert.equal(new Set(values.map(toHex)).size, 200);
  });

  it('gives up in time while somebody keeps the connection, and works again after', async () => {
    await using swtpm = await startSwtpm();
    const keepers = await Promise.all(
      Array.from({ length: 2 }, async () => {
        const socket = connect({ path: swtpm.socket });
        await new Promise((resolve) => socket.once('connect', resolve));
        return socket;
      }),
    );
    const started = performance.now();
    const attempts = Array.from({ length: 5 }, () =>
      withTpm(swtpm.address, (tpm) => tpm.getRandom(1), { timeoutMs: 300 }),
    );
    for (const attempt of await Promise.allSettled(attempts)) {
      assert.equal(attempt.status, 'rejected');
      assert.ok(attempt.reason instanceof UnreachableError);
      assert.equal(attempt.reason.code, 'ERR_TPM_TIMEOUT');
    }
    assert.ok(performance.now() - started < 10_000);
    for (const keeper of keepers) keeper.destroy();
    assert.equal((await withTpm(swtpm.address, (tpm) => tpm.getRandom(4))).length, 4);
  });

  it('lets the next one in when a use throws', async () => {
    await using swtpm = await startSwtpm();
    await assert.rejects(
      withTpm(swtpm.address, () => Promise.reject(new ParseError('mine'))),
      { message: 'mine' },
    );
    assert.equal((await withTpm(swtpm.address, (tpm) => tpm.getRandom(4))).length, 4);
  });
});

describe('a TPM at a character device', () => {
  const skip = spawnSync('socat', ['-V']).error !== undefined && 'NOT TESTED: no socat to make a device with';
  it('is used like a socket', { skip }, async () => {
    await using swtpm = await startSwtpm();
    await using folder = await temporaryFolder();
    const device = folder.file('tpmrm0');
    const socat = spawn('socat', [`PTY,link=${device},raw,echo=0`, `UNIX-CONNECT:${swtpm.socket}`]);
    try {
      for (let i = 0; i < 200 && !existsSync(device); i++) await delay(10);
      const address = `device:${device}`;
      const values = await withTpm(address, (tpm) => tpm.readPcrs(Array.from({ length: 24 }, (_, i) => i)));
      assert.equal(values.size, 24);
      assert.equal((await withTpm(address, (tpm) => tpm.getRandom(32))).length, 32);
    } finally {
      socat.kill('SIGKILL');
    }
  });
});
