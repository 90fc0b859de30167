import assert from 'node:assert/strict';
import { AsyncResource } from 'node:async_hooks';
import { test } from 'node:test';
import { AS_FOUND, world } from '../world.fixture.ts';
import { miniUp } from './mini.ts';
import { miniDown } from './mini-down.ts';

test('a second up, or a down, leaves alone what an up is just making', async (t) => {
  const { parts, context, done } = await world(t);
  const refused = { code: 'ERR_LOCKED', message: new RegExp(`^process ${process.pid} is at work in `) };
  const { create } = parts.machines;
  parts.machines.create = async (spec, options) => {
    await assert.rejects(miniUpElsewhere(), refused);
    await assert.rejects(miniDownElsewhere(), refused);
    return create(spec, options);
  };
  // Not as steps of the first one, which may enter its own workspace.
  const [miniUpElsewhere, miniDownElsewhere] = [
    AsyncResource.bind(() => miniUp(context(), parts, AS_FOUND)),
    AsyncResource.bind(() => miniDown(context(), parts.machines)),
  ];
  const { already } = await miniUp(context(), parts, AS_FOUND);
  assert.equal(already, false);
  assert.deepEqual(done, ['components v1.37.2', 'image', 'create']);
});
