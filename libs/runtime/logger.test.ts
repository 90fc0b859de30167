import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { AsterismError } from '@asterism/errors/errors';
import { InitRequestSchema } from '@asterism/rpc/gen/init_pb';
import { IssueJoinTicketResponseSchema } from '@asterism/rpc/gen/join_pb';
import { RecoverMessageSchema } from '@asterism/rpc/gen/recover_pb';
import { create, toJson } from '@bufbuild/protobuf';
import { createLogger } from './logger.ts';

/** In whatever form it leaves: text, base64, hex, or a list of numbers. */
const SECRET = 'TOPSECRET';
const BYTES = Buffer.from(SECRET);
const FORMS = [SECRET, BYTES.toString('base64'), BYTES.toString('hex'), [...BYTES].join(), '"0":84'];
const KMS = `kms://cluster-kms?key=${SECRET}&salt=${SECRET}`;

/** The line that a log call leaves. */
// biome-ignore lint/suspicious/noExplicitAny: what a test looks for in JSON is named by the test
function logged(write: (log: ReturnType<typeof createLogger>) => void): Record<string, any> {
  const lines: string[] = [];
  const destination = { write: (line: string) => void lines.push(line) };
  write(createLogger({ name: 'test', level: 'info', destination }));
  assert.equal(lines.length, 1);
  for (const form of FORMS) assert.ok(!lines[0]!.includes(form), lines[0]);
  return JSON.parse(lines[0]!);
}

describe('secrets in logs', () => {
  const request = create(InitRequestSchema, {
    kmsUri: KMS,
    storageUri: 'storage://no-store',
    initSecret: BYTES,
    measurementSalt: BYTES,
    clusterName: 'one',
    kubernetesComponents: [{ url: 'https://example.org/kubelet', installPath: '/run/state/bin/kubelet' }],
  });
  const ticket = create(IssueJoinTicketResponseSchema, {
    stateDiskKey: BYTES,
    measurementSecret: BYTES,
    token: SECRET,
    controlPlaneFiles: [{ name: 'ca.key', data: BYTES }],
    apiServerEndpoint: '10.0.0.1:6443',
  });

  it('a real request and a real ticket, however deep', () => {
    const recover = create(RecoverMessageSchema, { kmsUri: KMS });
    for (const value of [request, ticket, recover]) {
      logged((log) => log.info(value, 'x'));
      logged((log) => log.info({ a: { b: [{ c: { value } }] } }, 'x'));
      logged((log) => log.error({ err: Object.assign(new Error('x'), { value }) }, 'x'));
      logged((log) =>
        log.error({ err: new Error('x', { cause: Object.assign(new Error('y'), { value }) }) }),
      );
      logged((log) => log.error(new AggregateError([Object.assign(new Error('y'), { value })], 'x')));
      logged((log) => log.child({ value }).info({}, 'x'));
    }
    logged((log) =>
      log.info({ json: toJson(InitRequestSchema, create(InitRequestSchema, { kmsUri: KMS })) }),
    );
    const line = logged((log) => log.info({ request }, 'x'));
    assert.equal(line.request.clusterName, 'one');
    assert.equal(line.request.kubernetesComponents[0].installPath, '/run/state/bin/kubelet');
    assert.equal(line.request.kmsUri, '[secret]');
  });

  it('by every name that they have here, in every spelling, at every depth', () => {
    for (const name of [
      ...['initSecret', 'kmsUri', 'masterSecret', 'stateDiskKey', 'token', 'passphrase', 'measurementSecret'],
      ...[
        'init_secret',
        'kms_uri',
        'KMS-URI',
        'state_disk_key',
        'client-key-data',
        'Authorization',
        'x-token',
      ],
      ...['password', 'dataKey', 'diskKey', 'bootstrapToken', 'kubeconfig', 'certificateKey', 'privateKey'],
      ...['accessKey', 'sessionToken', 'serviceAccountKey', 'accountKey', 'clientSecret', 'secretID', 'pin'],
    ]) {
      let value: object = { [name]: SECRET };
      for (let depth = 0; depth < 12; depth++) {
        logged((log) => log.info(value, name));
        logged((log) => log.child(value).child({}).info({}, name));
        logged((log) => log.child({}).child(value).info({}, name));
        value = depth % 2 === 0 ? { inner: value } : { inner: [value] };
      }
    }
  });

  it('within a text: a KMS URI, a private key, a kubeconfig', () => {
    for (const text of [
      `cannot open ${KMS}: no`,
      `cannot open storage://aws?bucket=keys&accessKey=${SECRET}: no`,
      `-----BEGIN EC PRIVATE KEY-----\n${SECRET}\n-----END EC PRIVATE KEY-----`,
      `users:\n- user:\n    client-key-data: ${SECRET}\n`,
      `{"client-key-data":"${SECRET}"}`,
    ]) {
      logged((log) => log.info(text));
      logged((log) => log.info({ line: text }, 'x'));
      logged((log) => log.error(new Error(text)));
      logged((log) => log.error({ err: new AsterismError('ERR_X', 'x', { cause: new Error(text) }) }, 'x'));
    }
  });

  it('do not keep what is none from being read', () => {
    const err = new AsterismError('ERR_X', 'it broke', { cause: new TypeError('why') });
    const line = logged((log) =>
      log.warn(
        { err, diskUuid: 'u', keyId: 'key-u', pcrs: [1, 2], at: new Date(0), seq: 3n, none: null },
        'said',
      ),
    );
    assert.equal(line.msg, 'said');
    assert.equal(line.level, 40);
    assert.partialDeepStrictEqual(line, {
      err: { type: 'AsterismError', code: 'ERR_X', message: 'it broke', cause: { message: 'why' } },
      diskUuid: 'u',
      keyId: 'key-u',
      pcrs: [1, 2],
      at: '1970-01-01T00:00:00.000Z',
      seq: '3',
      none: null,
    });
    assert.match(line.err.stack, /logger\.test\.ts/);
    assert.equal(logged((log) => log.error(err)).msg, 'it broke');
    assert.equal(logged((log) => log.info('only a text')).msg, 'only a text');
  });
});

describe('a log line', () => {
  it('is bounded, whatever it is given', () => {
    const round: { self?: unknown } = {};
    round.self = round;
    let size = 0;
    const write = (line: string): void => {
      size = line.length;
    };
    const log = createLogger({ name: 'test', destination: { write } });
    for (const value of [
      { round },
      { many: Array.from({ length: 1_000_000 }, (_, at) => at) },
      { wide: Array.from({ length: 200 }, () => Array.from({ length: 200 }, () => round)) },
      { long: 'x'.repeat(10_000_000) },
      Object.fromEntries(Array.from({ length: 50_000 }, (_, at) => [`f${at}`, at])),
    ]) {
      log.info(value, 'x');
      assert.ok(size > 50 && size < 100_000, String(size));
    }
  });

  it('is written even where a field cannot be read', () => {
    const fields = {
      get broken(): string {
        throw new Error('no');
      },
      inner: {
        toJSON() {
          throw new Error('no');
        },
      },
      ok: 1,
    };
    const line = logged((log) => log.info(fields, 'x'));
    assert.deepEqual([line.broken, line.inner, line.ok], ['[unreadable]', '[unreadable]', 1]);
  });
});
