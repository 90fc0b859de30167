import { setTimeout as sleep } from 'node:timers/promises';
import type { Result } from '../cluster.ts';

/** Waits for a command, and acts once while it runs: as soon as `when` is true. */
export async function meanwhile(
  command: Promise<Result>,
  when: () => Promise<boolean>,
  act: () => Promise<void>,
): Promise<Result> {
  let running = true;
  const ended = command.finally(() => {
    running = false;
  });
  const watching = (async () => {
    while (running) {
      if (await when()) return act();
      await sleep(50);
    }
    throw new Error('the command ended before its moment had come');
  })();
  const [result] = await Promise.all([ended, watching]);
  return result;
}
