import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { firstGood } from './race.ts';
import { knownRole } from './role.ts';
import { untilAborted, untilItWorks } from './until.ts';

const never = new AbortController().signal;

describe('race', () => {
  const failed: object[] = [];
  const log = { error: (fields: object) => void failed.push(fields) };
  const failing = {
    name: 'failing',
    run: async (): Promise<string> => {
      throw new Error('port taken');
    },
  };

  it('a way that fails does not end the other, and is in the log', async () => {
    failed.length = 0;
    const slow = {
      name: 'slow',
      run: () => new Promise<string>((resolve) => setTimeout(() => resolve('good'), 50)),
    };
    assert.equal(await firstGood([failing, slow], log, never), 'good');
    assert.deepEqual(failed, [{ err: new Error('port taken'), way: 'failing' }]);
  });

  it('the winner stops the loser and waits for it, which is no failure', async () => {
    failed.length = 0;
    let stopped = false;
    const loser = {
      name: 'loser',
      run: (signal: AbortSignal): Promise<string> =>
        untilAborted(signal).catch((error) => {
          stopped = true;
          throw error;
        }),
    };
    assert.equal(await firstGood([{ name: 'winner', run: async () => 'won' }, loser], log, never), 'won');
    assert.equal(stopped, true);
    assert.deepEqual(failed, []);
  });

  it('fails only when all have failed', async () => {
    await assert.rejects(firstGood([failing, failing], log, never), AggregateError);
  });

  it('ends with the reason of the signal', async () => {
    const stop = new AbortController();
    const ended = firstGood([failing, { name: 'waiting', run: untilAborted }], log, stop.signal);
    stop.abort(new Error('SIGTERM'));
    await assert.rejects(ended, { message: 'SIGTERM' });
  });
});

describe('until it works', () => {
  it('asks for the role of the machine until the provider knows it', async () => {
    const answers = [
      async () => {
        throw new Error('no metadata yet');
      },
      async () => ({ role: 'Unknown' }),
      async () => ({ role: 'Worker' }),
    ];
    const said: object[] = [];
    const metadata = { self: () => answers.shift()!() as never };
    assert.equal(await knownRole(metadata, { warn: (fields) => void said.push(fields) }, never), 'Worker');
    assert.equal(said.length, 2);
  });

  it('ends at the signal, also within a wait', async () => {
    const stop = new AbortController();
    const attempt = async (): Promise<void> => {
      throw new Error('no');
    };
    const ended = untilItWorks(
      attempt,
      () => setImmediate(() => stop.abort(new Error('enough'))),
      stop.signal,
    );
    await assert.rejects(ended, { message: 'enough' });
  });
});
