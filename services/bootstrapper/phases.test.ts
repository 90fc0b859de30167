import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { after, before, it } from 'node:test';
import fc from 'fast-check';
import { Journal } from './journal.ts';
import { type Phase, runPhases } from './phases.ts';

let folder: string;
before(async () => {
  folder = await mkdtemp(`${tmpdir()}/asterism-phases-`);
});
after(() => rm(folder, { recursive: true, force: true }));

class Killed extends Error {}

it('whatever the kills, each phase completes in order, and one that is written down is not run again', async () => {
  let run = 0;
  const kills = fc.array(
    fc.record({ phase: fc.nat(5), when: fc.constantFrom('before', 'within', 'after') }),
    {
      maxLength: 8,
    },
  );
  await fc.assert(
    fc.asyncProperty(kills, fc.nat(5), async (planned, alwaysPhase) => {
      const path = `${folder}/journal-${run++}.json`;
      const pending = [...planned];
      /** Half of a phase's work; the phase is done when both halves are. */
      const halves = new Set<string>();
      const written: string[] = [];
      const die = (phase: number, when: string): void => {
        if (pending[0]?.phase === phase && pending[0].when === when) {
          pending.shift();
          throw new Killed();
        }
      };
      const phases: Phase<undefined>[] = Array.from({ length: 6 }, (_, index) => ({
        name: `phase-${index}`,
        always: index === alwaysPhase,
        async run() {
          if (index !== alwaysPhase)
            assert.ok(!written.includes(`phase-${index}`), 'run again although written down');
          for (let earlier = 0; earlier < index; earlier++)
            assert.ok(halves.has(`${earlier}b`), 'out of order');
          die(index, 'before');
          halves.add(`${index}a`);
          die(index, 'within');
          halves.add(`${index}b`);
          // The work is done, its entry in the journal is not.
          die(index, 'after');
        },
      }));
      for (let life = 0; ; life++) {
        assert.ok(life <= planned.length, 'more lives than kills');
        const journal =
          (await Journal.load(path)) ?? (await Journal.begin(path, 'init', 'ab'.repeat(32), 'order'));
        try {
          await runPhases(phases, undefined, journal, () => {}, new AbortController().signal);
          break;
        } catch (error) {
          assert.ok((error as Error).cause instanceof Killed, String(error));
          written.splice(0, written.length, ...(await Journal.load(path))!.done);
        }
      }
      assert.equal(halves.size, 12);
      assert.deepEqual(
        [...(await Journal.load(path))!.done].sort(),
        phases.map(({ name }) => name),
      );
    }),
    { numRuns: 40 },
  );
});

it('refuses half a journal instead of guessing', async () => {
  const path = `${folder}/half.json`;
  for (const text of ['', '{', '{}', '{"version":2}', '[]']) {
    await writeFile(path, text);
    await assert.rejects(Journal.load(path), { code: 'ERR_PARSE' });
  }
});

it('keeps facts and completion over a restart', async () => {
  const path = `${folder}/facts.json`;
  const journal = await Journal.begin(path, 'join', 'cd'.repeat(32), 'order');
  await journal.setFact('a', 'b');
  await journal.markDone('x');
  await journal.markDone('x');
  await journal.markComplete();
  const again = (await Journal.load(path))!;
  assert.equal(again.fact('a'), 'b');
  assert.deepEqual(again.done, ['x']);
  assert.equal(again.complete, true);
  await again.remove();
  assert.equal(await Journal.load(path), undefined);
});
