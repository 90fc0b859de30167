import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type ClusterState, type Migration, parseState, renderState } from './state.ts';

const state: ClusterState = {
  schema: 1,
  name: 'mini',
  uid: '0a1b2c3d',
  provider: 'local',
  phase: 'created',
  kubernetesVersion: 'v1.37.2',
  image: 'sha256:aa',
  endpoint: '10.77.1.1',
  nodes: [{ name: 'mini-control-plane-0', role: 'ControlPlane', address: '10.77.1.10' }],
  initSecret: 'c2VjcmV0',
};

test('what is written is read', () => {
  assert.deepEqual(parseState(renderState(state)), state);
  const later = {
    ...state,
    phase: 'initialized',
    clusterId: 'ab'.repeat(32),
    measurementSalt: 'AAAA',
  } as const;
  assert.deepEqual(parseState(renderState(later)), later);
});

test('a newer schema is refused and says so', () => {
  assert.throws(() => parseState(JSON.stringify({ ...state, schema: 2 })), { code: 'ERR_STATE_NEWER' });
});

test('an older schema goes through its migrations, one after the other', () => {
  const { uid, ...withoutUid } = state;
  const old = { ...withoutUid, schema: -1, id: uid };
  const migrated = parseState(
    JSON.stringify(old),
    'state',
    new Map<number, Migration>([
      [-1, ({ id, ...rest }) => ({ ...rest, uuid: id })],
      [0, ({ uuid, ...rest }) => ({ ...rest, uid: uuid })],
    ]),
  );
  assert.deepEqual(migrated, state);
});

test('a schema without migration is refused', () => {
  assert.throws(() => parseState(JSON.stringify({ ...state, schema: 0 })), /never released/);
});

for (const [what, text] of [
  ['nothing', ''],
  ['half a file', renderState(state).slice(0, 100)],
  ['an array', '[]'],
  ['no schema', JSON.stringify({ name: 'mini' })],
  ['a fractional schema', JSON.stringify({ ...state, schema: 1.5 })],
  ['an endless migration', JSON.stringify({ ...state, schema: -9e15 })],
  ['an unknown key', JSON.stringify({ ...state, extra: 1 })],
  ['an unknown phase', JSON.stringify({ ...state, phase: 'done' })],
  ['a path as name', JSON.stringify({ ...state, name: '../x' })],
  ['a path as uid', JSON.stringify({ ...state, uid: '../../..' })],
] as const) {
  test(`${what} is refused`, () => {
    assert.throws(() => parseState(text), { name: 'ParseError' });
  });
}

test('an empty file is said to be empty', () => {
  assert.throws(() => parseState(' \n', 'state'), { message: 'state: is empty' });
});

test('an error never quotes the file, which holds the init secret', () => {
  const broken = `${renderState(state).slice(0, -3)},,`;
  assert.throws(
    () => parseState(broken),
    (error: Error) => !String(error.message).includes('c2VjcmV0'),
  );
});
