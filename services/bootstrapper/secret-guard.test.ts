import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { hash } from 'bcryptjs';
import { SecretGuard } from './secret-guard.ts';

const RIGHT = Buffer.from('right');
const ADDRESS = '10.0.0.9';
const HASH = await hash('right', 4);

describe('init secret guard', () => {
  it('refuses to exist without a hash', () => {
    for (const bad of ['', 'plain', '$2b$10$short']) {
      assert.throws(() => new SecretGuard(bad), { code: 'ERR_INIT_SECRET_HASH' });
    }
  });

  it('lets the right secret in and forgets earlier mistakes then', async () => {
    const guard = new SecretGuard(HASH);
    for (let round = 0; round < 3; round++) {
      for (let wrong = 0; wrong < 8; wrong++) {
        await assert.rejects(guard.check(Buffer.from('wrong'), ADDRESS), { code: 'ERR_INIT_SECRET' });
      }
      await guard.check(RIGHT, ADDRESS);
    }
  });

  it('waits longer after each further mistake, up to the bound', async () => {
    let now = 0;
    const guard = new SecretGuard(HASH, { now: () => now });
    const wrong = (): Promise<void> => guard.check(Buffer.from('wrong'), ADDRESS);
    for (let attempt = 1; attempt <= 9; attempt++) await assert.rejects(wrong(), { code: 'ERR_INIT_SECRET' });
    for (const wait of [10_000, 20_000, 40_000, 80_000, 160_000, 300_000, 300_000]) {
      now += wait - 1;
      await assert.rejects(
        guard.check(RIGHT, ADDRESS),
        { code: 'ERR_INIT_SECRET_THROTTLED' },
        `still within ${wait} ms`,
      );
      now += 1;
      await assert.rejects(wrong(), { code: 'ERR_INIT_SECRET' });
    }
    now += 300_000;
    await guard.check(RIGHT, ADDRESS);
  });

  it('lets the owner in at once while others guess without a pause', async () => {
    const guard = new SecretGuard(HASH);
    let stopped = false;
    const answers = new Map<string, number>();
    const attackers = Array.from({ length: 20 }, async (_, at) => {
      while (!stopped) {
        const { code } = await guard.check(Buffer.from('wrong'), `10.0.0.${10 + at}`).catch((error) => error);
        answers.set(code, (answers.get(code) ?? 0) + 1);
        await new Promise((resolve) => setImmediate(resolve));
      }
    });
    try {
      for (let time = 0; time < 40; time++) await guard.check(RIGHT, ADDRESS);
      while (!answers.has('ERR_INIT_SECRET_THROTTLED')) await guard.check(RIGHT, ADDRESS);
    } finally {
      stopped = true;
      await Promise.all(attackers);
    }
    assert.ok(answers.get('ERR_INIT_SECRET')! <= 20 * 9, 'nobody has more guesses than its own');
  });

  it('a success of one caller gives another no attempts back', async () => {
    const guard = new SecretGuard(HASH);
    for (let attempt = 1; attempt <= 9; attempt++) {
      await assert.rejects(guard.check(Buffer.from('wrong'), '10.0.0.1'), { code: 'ERR_INIT_SECRET' });
      await guard.check(RIGHT, ADDRESS);
    }
    await assert.rejects(guard.check(RIGHT, '10.0.0.1'), { code: 'ERR_INIT_SECRET_THROTTLED' });
  });

  it('compares one at a time, so that parallel callers gain no attempts', async () => {
    const guard = new SecretGuard(HASH);
    const answers = await Promise.allSettled(
      Array.from({ length: 20 }, () => guard.check(Buffer.from('wrong'), ADDRESS)),
    );
    const codes = answers.map((answer) => (answer.status === 'rejected' ? answer.reason.code : 'let in'));
    assert.equal(codes.filter((code) => code === 'ERR_INIT_SECRET').length, 1);
    assert.equal(codes.filter((code) => code === 'ERR_BUSY').length, 19);
  });

  it('refuses what bcrypt would cut off or is no text', async () => {
    const long = 'x'.repeat(72);
    const guard = new SecretGuard(await hash(long, 4));
    for (const secret of [Buffer.from(`${long}y`), Buffer.alloc(0), Buffer.from([0xff])]) {
      await assert.rejects(guard.check(secret, ADDRESS), { code: 'ERR_INIT_SECRET' });
    }
    await guard.check(Buffer.from(long), ADDRESS);
  });
});
