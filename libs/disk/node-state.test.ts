import assert from 'node:assert/strict';
import { mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { after, before, it } from 'node:test';
import { readNodeState, writeNodeState } from './node-state.ts';

let folder: string;
before(async () => {
  folder = await mkdtemp(`${tmpdir()}/asterism-state-`);
});
after(() => rm(folder, { recursive: true, force: true }));

it('writes and reads the node state, mode 0600, nothing left beside it', async () => {
  const path = `${folder}/deep/node_state.json`;
  const measurementSalt = new Uint8Array(32).fill(9);
  await writeNodeState(path, { role: 'Worker', measurementSalt });
  await writeNodeState(path, { role: 'ControlPlane', measurementSalt });
  assert.deepEqual(await readNodeState(path), { role: 'ControlPlane', measurementSalt });
  assert.equal((await stat(path)).mode & 0o777, 0o600);
  assert.deepEqual(await readdir(`${folder}/deep`), ['node_state.json']);
  assert.equal(JSON.parse(await readFile(path, 'utf8')).Role, 'ControlPlane');
});

it('refuses what is no node state', async () => {
  const path = `${folder}/bad.json`;
  for (const text of [
    '',
    '{',
    '[]',
    '{"Role":"ControlPlane"}',
    '{"Role":"Unknown","MeasurementSalt":""}',
    '{"Role":"Worker","MeasurementSalt":"AAAA"}',
    `{"Role":"Worker","MeasurementSalt":"${Buffer.alloc(32).toString('base64')}","More":1}`,
  ]) {
    await writeFile(path, text);
    await assert.rejects(readNodeState(path), { code: 'ERR_PARSE' }, text);
  }
});
