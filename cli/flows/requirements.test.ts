import assert from 'node:assert/strict';
import { stat, statfs } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { checkRequirements } from './requirements.ts';

const SKIP = process.getuid?.() === 0 ? false : 'needs root: without it, that is what is missing';
const BELOW = join(tmpdir(), 'not', 'there', 'yet');
const MEMORY_DISK = '/dev/shm';

async function freeGib(folder: string): Promise<number> {
  const { bavail, bsize } = await statfs(folder);
  return (bavail * bsize) / 1024 ** 3;
}

const check = (...room: { folder: string; gib: number }[]) => checkRequirements({ nodes: 0, room });
/** Others write to these disks meanwhile. */
const MOST = 0.7;

test('what is needed in two folders of one file system is counted together', { skip: SKIP }, async () => {
  const most = MOST * (await freeGib(tmpdir()));
  const one = { folder: join(BELOW, 'clusters'), gib: most };
  const other = { folder: join(BELOW, 'cache'), gib: most };
  await check(one);
  await check(other);
  await assert.rejects(check(one, other), (error: Error & { code: string }) => {
    assert.equal(error.code, 'ERR_REQUIREMENTS');
    assert.ok(error.message.includes(one.folder) && error.message.includes(other.folder));
    return true;
  });
});

test('what is needed on two file systems is looked for on each', { skip: SKIP }, async (t) => {
  const devices = await Promise.all([tmpdir(), MEMORY_DISK].map((path) => stat(path).catch(() => undefined)));
  if (devices[1] === undefined || devices[0]!.dev === devices[1].dev) {
    t.skip(`${MEMORY_DISK} is no file system of its own here`);
    return;
  }
  const here = { folder: BELOW, gib: MOST * (await freeGib(tmpdir())) };
  const there = { folder: join(MEMORY_DISK, 'cache'), gib: MOST * (await freeGib(MEMORY_DISK)) };
  await check(here, there);
  await assert.rejects(check(here, { ...there, gib: 2 * there.gib }), (error: Error) => {
    assert.ok(error.message.includes(there.folder) && !error.message.includes(here.folder));
    return true;
  });
});

test('everything that is missing is told at once, with the way to go on', { skip: SKIP }, async () => {
  const needs = { nodes: 1_000_000, room: [{ folder: BELOW, gib: 1_000_000 }] };
  await assert.rejects(checkRequirements(needs), /GiB of memory.*1000000 GiB of free disk.*--force/s);
});
