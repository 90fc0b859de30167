import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { access, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { isZero } from '@asterism/bytes/bytes';
import { fromBase64, fromUtf8, toHex } from '@asterism/bytes/encoding';
import { clusterId, deriveKey } from '@asterism/crypto/derive';
import { readNodeState } from '@asterism/disk/node-state';
import { type AsterismError, PolicyError } from '@asterism/errors/errors';
import { parseKeyConfiguration } from '@asterism/kms/key-configuration';
import type { InstanceMetadata, Metadata } from '@asterism/metadata/types';
import { type AtlsClient, atlsClient } from '@asterism/rpc/atls-client';
import { AtlsGrpcServer } from '@asterism/rpc/atls-server';
import { API, type InitEvent } from '@asterism/rpc/gen/init_pb';
import { AuditLog } from '@asterism/runtime/audit-log';
import { clusterIdPcr } from '@asterism/runtime/machine-tpm';
import { fakeIssuer, fakeVerifier } from '@asterism/testkit/fake-attestation';
import { hash } from 'bcryptjs';
import { instance, makeTestMachine, type TestMachine, testKeys, testMetadata } from './fake-machine.ts';
import { INIT_PHASES } from './init-phases.ts';
import { MAX_REQUEST_BYTES } from './init-server.ts';
import { Initializer } from './initializer.ts';
import { Journal } from './journal.ts';
import { NodeLock } from './node-lock.ts';
import { SecretGuard } from './secret-guard.ts';
import { initService } from './service.ts';

const SECRET = Buffer.from('correct horse battery staple');
const HASH = await hash(SECRET.toString(), 4);
const quiet = { info() {}, warn() {}, error() {} };

const master = randomBytes(32);
const order = {
  kmsUri: `kms://cluster-kms?key=${master.toString('hex')}`,
  storageUri: 'storage://no-store',
  kubernetesVersion: 'v1.37.2',
  kubernetesComponents: ['kubeadm', 'kubelet', 'kubectl'].map((name) => ({
    url: `http://10.77.1.1:8080/components/${name}`,
    hash: `sha256:${'0'.repeat(64)}`,
    installPath: `/run/state/bin/${name}`,
    extract: false,
  })),
  initSecret: SECRET,
  clusterName: 'test',
  measurementSalt: new Uint8Array(32).fill(5),
  joinMeasurements: Buffer.from('{}'),
};
const secret = deriveKey(master, new Uint8Array(32).fill(1), 'key-measurementSecret', 32);
const expectedId = clusterId(secret, order.measurementSalt);

describe('init over aTLS', () => {
  let machine: TestMachine;
  let stop: (() => Promise<void>)[];
  let confirmed: number;
  let metadata: Metadata;
  let policy: (pcrs: ReadonlyMap<number, Uint8Array>) => string;

  beforeEach(async () => {
    machine = await makeTestMachine();
    stop = [() => machine.remove()];
    confirmed = 0;
    metadata = testMetadata(instance('CP_0', '10.77.1.2', 'ControlPlane'));
    policy = () => '{"4":{}}';
  });
  afterEach(async () => {
    for (const end of stop.reverse()) await end();
  });

  const auditPath = () => join(machine.machine.layout.root, 'audit.log');
  const audited = async (): Promise<Record<string, unknown>[]> =>
    (await readFile(auditPath(), 'utf8'))
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line));

  /** One life of a bootstrapper's process. */
  async function boot(
    lock = new NodeLock(),
    failing?: Pick<AuditLog, 'append'>,
  ): Promise<{
    client: () => AtlsClient<typeof API>;
    initializer: Initializer;
    kill: () => Promise<void>;
  }> {
    const initializer = new Initializer({
      machine: machine.machine,
      metadata,
      keys: testKeys,
      policy: { settle: (_, pcrs) => policy(pcrs) },
      lock,
      log: quiet,
    });
    const server = new AtlsGrpcServer({ issuer: fakeIssuer(), maxRequestBytes: MAX_REQUEST_BYTES });
    const guard = new SecretGuard(HASH);
    const audit = await AuditLog.open(auditPath());
    server.addService(
      API,
      initService({ initializer, guard, audit: failing ?? audit, onConfirmed: () => confirmed++ }),
    );
    const { port } = await server.listen(0, '127.0.0.1');
    const kill = async (): Promise<void> => {
      machine.node.hook = async () => {};
      await server.stop(0);
      await initializer.stop();
      await audit.close();
    };
    stop.push(kill);
    return {
      initializer,
      kill,
      client: () => {
        const client = atlsClient(API, {
          host: '127.0.0.1',
          port,
          verifiers: [fakeVerifier()],
          callTimeoutMs: 30_000,
        });
        stop.push(async () => client.close());
        return client;
      },
    };
  }

  async function collect(events: AsyncIterable<InitEvent>): Promise<InitEvent[]> {
    const all: InitEvent[] = [];
    for await (const event of events) all.push(event);
    return all;
  }

  it('brings up a cluster, phase by phase, and answers with kubeconfig and cluster id', async () => {
    const { client } = await boot();
    const events = await collect(client().initStream(order));
    const done = events.at(-1)!.kind;
    assert.equal(done.case, 'done');
    assert.equal(done.case === 'done' && toHex(done.value.clusterId), toHex(expectedId));
    const phases = events.flatMap(({ kind }) =>
      kind.case === 'progress' && kind.value.state === 'done' ? [kind.value.phase] : [],
    );
    assert.deepEqual(
      phases,
      INIT_PHASES.map(({ name }) => name),
    );
    assert.deepEqual(machine.tpm.pcrs.get(15), clusterIdPcr(expectedId));
    const header = await machine.machine.disk.header();
    assert.equal(header.initialized, true);
    const key = deriveKey(master, new Uint8Array(32).fill(1), `key-${header.uuid}`, 32);
    assert.equal(await machine.machine.disk.testKey(key), true);
    assert.equal(await machine.machine.disk.testKey(machine.temporaryKey), false);
    await assert.rejects(access(machine.machine.temporaryKeyFile!), { code: 'ENOENT' });
    const state = await readNodeState(machine.machine.layout.nodeState);
    assert.deepEqual(state, { role: 'ControlPlane', measurementSalt: order.measurementSalt });
    assert.equal((await Journal.load(machine.machine.layout.initJournal))!.complete, false);

    const objects = JSON.parse(machine.node.applied.find((text) => text.includes('join-config'))!).items as {
      metadata: { name: string };
      data: Record<string, string>;
    }[];
    const byName = new Map(objects.map((object) => [object.metadata.name, object]));
    const keys = fromUtf8(fromBase64(byName.get('asterism-kms')!.data.configuration!));
    const { kmsUri, storageUri } = order;
    assert.deepEqual(parseKeyConfiguration(keys), { homes: [{ kmsUri, storageUri }] });
    assert.equal(byName.get(`disk-${header.uuid}`)!.data.key, '1.0');
    assert.deepEqual(header.keyToken, { keys: [{ name: '1.0' }] });
    assert.equal(byName.get('join-config')!.data.measurements, '{"4":{}}');
    assert.equal(byName.get(`disk-${header.uuid}`)!.data.instanceName, 'CP_0');
    const config = machine.node.files.get('/etc/kubernetes/kubeadm.yaml')!;
    assert.match(config, /name: cp-0/);
    assert.match(config, /controlPlaneEndpoint: 10\.77\.1\.1:6443/);
  });

  it('answers the unary call of an older client', async () => {
    const { client } = await boot();
    const answer = await client().init(order);
    assert.equal(toHex(answer.clusterId), toHex(expectedId));
    assert.match(new TextDecoder().decode(answer.kubeconfig), /kind: Config/);
  });

  it('refuses a wrong secret, and throttles from the tenth on without touching the machine', async () => {
    const { client } = await boot();
    const wrong = client();
    for (let attempt = 1; attempt <= 9; attempt++) {
      await assert.rejects(wrong.init({ ...order, initSecret: Buffer.from(`guess ${attempt}`) }), {
        code: 'ERR_INIT_SECRET',
        status: 'UNAUTHENTICATED',
      });
    }
    await assert.rejects(wrong.init({ ...order, initSecret: Buffer.from('guess 10') }), {
      code: 'ERR_INIT_SECRET_THROTTLED',
      status: 'RESOURCE_EXHAUSTED',
    });
    await assert.rejects(wrong.init(order), { code: 'ERR_INIT_SECRET_THROTTLED' });
    assert.deepEqual(machine.node.steps, []);
    assert.ok(isZero(machine.tpm.pcrs.get(15)!));
    for (let more = 0; more < 8; more++) await assert.rejects(wrong.init(order));
    const lines = await audited();
    assert.ok(lines.every(({ event, outcome }) => event === 'init' && outcome === 'refused'));
    // Each guess that was compared has its line; of what was refused unseen, those that double in number.
    assert.deepEqual(
      lines.map(({ reason, times }) => [reason, times]),
      [
        ...Array(9).fill(['ERR_INIT_SECRET', undefined]),
        ...[1, 2, 4, 8].map((times) => ['ERR_INIT_SECRET_THROTTLED', times]),
      ],
    );
    assert.doesNotMatch(JSON.stringify(lines), /guess/);
  });

  it('records who was admitted before anything is answered, and admits nobody when it cannot', async () => {
    const failing = { append: () => Promise.reject(new Error('disk full')) };
    const { client } = await boot(new NodeLock(), failing);
    await assert.rejects(client().init(order), { status: 'INTERNAL' });
    const wrong = { ...order, initSecret: Buffer.from('a guess') };
    await assert.rejects(client().init(wrong), { status: 'INTERNAL' });
    assert.deepEqual(machine.node.steps, []);
    assert.ok(isZero(machine.tpm.pcrs.get(15)!));
    const other = await boot();
    await other.client().init(order);
    const [line, ...more] = await audited();
    assert.deepEqual(
      [line?.event, line?.outcome, line?.address, more.length],
      ['init', 'granted', '127.0.0.1', 0],
    );
  });

  it('refuses a second init while the first runs and its caller listens', async () => {
    const { client } = await boot();
    let release = (): void => {};
    const reached = new Promise<void>((resolve) => {
      machine.node.hook = (step) => {
        if (step !== 'images') return Promise.resolve();
        resolve();
        return new Promise((go) => {
          release = go;
        });
      };
    });
    const first = collect(client().initStream(order));
    await reached;
    for (const second of [order, { ...order, clusterName: 'other' }]) {
      await assert.rejects(client().init(second), { code: 'ERR_NODE_BUSY', status: 'FAILED_PRECONDITION' });
    }
    release();
    assert.equal((await first).at(-1)!.kind.case, 'done');
  });

  it('goes on without its caller; a later one hears everything and gets the answer', async () => {
    const { client } = await boot();
    let release = (): void => {};
    const reached = new Promise<void>((resolve) => {
      machine.node.hook = (step) => {
        if (step !== 'images') return Promise.resolve();
        resolve();
        return new Promise((go) => {
          release = go;
        });
      };
    });
    const caller = new AbortController();
    const cut = collect(client().initStream(order, { signal: caller.signal }));
    await reached;
    caller.abort();
    await assert.rejects(cut);
    let events: InitEvent[] = [];
    const again = client();
    const attach = async (): Promise<void> => {
      for (let attempt = 0; ; attempt++) {
        try {
          events = await collect(again.initStream(order));
          return;
        } catch (error) {
          // The server may not have seen the cut yet.
          if (attempt > 50) throw error;
          await new Promise((resolve) => setTimeout(resolve, 20));
        }
      }
    };
    const attached = attach();
    setTimeout(() => release(), 100);
    await attached;
    assert.equal(events.at(-1)!.kind.case, 'done');
    assert.equal(machine.node.steps.filter((step) => step === 'images').length, 1);
    assert.equal(events[0]!.kind.case === 'progress' && events[0]!.kind.value.phase, 'keys');
  });

  it('resumes after a kill at every step, before and after the step was written down', async () => {
    const steps: string[] = [];
    machine.node.hook = async (step) => {
      steps.push(step);
    };
    const first = await boot();
    await first.client().init(order);
    await first.kill();
    const total = steps.length;
    assert.ok(total > 20);
    for (let dieAt = 0; dieAt < total; dieAt++) {
      await machine.remove();
      machine = await makeTestMachine();
      let count = 0;
      let died = false;
      machine.node.hook = async () => {
        if (count++ === dieAt && !died) {
          died = true;
          throw new Error('killed');
        }
      };
      const before = await boot();
      await assert.rejects(before.client().init(order), /killed/);
      await before.kill();
      const after = await boot();
      const events = await collect(after.client().initStream(order));
      assert.equal(events.at(-1)!.kind.case, 'done', `killed at step ${dieAt} (${steps[dieAt]})`);
      assert.deepEqual(
        machine.tpm.pcrs.get(15),
        clusterIdPcr(expectedId),
        `PCR 15 is extended once (${dieAt})`,
      );
      await after.kill();
    }
  });

  it('resumes after a kill between the extend of PCR 15 and its entry in the journal', async () => {
    const { initJournal } = machine.machine.layout;
    const begun = Journal.begin.bind(Journal);
    const first = await boot();
    machine.node.hook = async () => {
      throw new Error('killed');
    };
    await assert.rejects(first.client().init(order), /killed/);
    await first.kill();
    const order0 = (await Journal.load(initJournal))!;
    await begun(initJournal, 'init', order0.clusterId, order0.order);
    const after = await boot();
    await after.client().init(order);
    assert.deepEqual(machine.tpm.pcrs.get(15), clusterIdPcr(expectedId));
  });

  it('after the lock takes no order of another cluster, and no other order of the same', async () => {
    machine.node.hook = async () => {
      throw new Error('killed');
    };
    const first = await boot();
    await assert.rejects(first.client().init(order), /killed/);
    await first.kill();
    const { client } = await boot();
    for (const [other, code] of [
      [{ kmsUri: `kms://cluster-kms?key=${'11'.repeat(32)}` }, 'ERR_NODE_INITIALIZED'],
      [{ measurementSalt: new Uint8Array(32).fill(6) }, 'ERR_NODE_INITIALIZED'],
      [{ clusterName: 'other' }, 'ERR_INIT_ORDER'],
      [{ kubernetesVersion: 'v1.36.3' }, 'ERR_INIT_ORDER'],
    ] as const) {
      await assert.rejects(client().init({ ...order, ...other }), { code, status: 'FAILED_PRECONDITION' });
    }
    const moved = order.kubernetesComponents.map((c) => ({
      ...c,
      url: c.url.replace('10.77.1.1', 'mirror'),
    }));
    await client().init({ ...order, kubernetesComponents: moved });
  });

  it('takes no order on a machine that is not the first control plane, and none while that is not known', async () => {
    const self = instance('cp-1', '10.77.1.3', 'ControlPlane');
    const first = instance('cp-0', '10.77.1.2', 'ControlPlane');
    const attempt = async (others: InstanceMetadata[]): Promise<unknown> => {
      metadata = testMetadata(self, others);
      const { client, kill } = await boot();
      const failure = await client()
        .init(order)
        .then(
          () => undefined,
          (error) => error,
        );
      await kill();
      return failure;
    };
    for (const others of [[first], [{ ...first, role: 'Unknown' as const }]]) {
      const failure = await attempt(others);
      assert.equal((failure as AsterismError | undefined)?.code, 'ERR_INIT_ELSEWHERE');
      assert.match(String(failure), /cp-0/);
      assert.equal(await Journal.load(machine.machine.layout.initJournal), undefined);
    }
    assert.deepEqual(machine.node.steps, []);
    assert.ok(isZero(machine.tpm.pcrs.get(15)!));
    assert.equal(await attempt([]), undefined);
    // What was begun goes on, whatever the provider says then.
    assert.equal(await attempt([first]), undefined);
  });

  it('refuses a node that is a member without a journal', async () => {
    await machine.tpm.extendClusterId(expectedId);
    const { client } = await boot();
    await assert.rejects(client().init(order), { code: 'ERR_NODE_INITIALIZED' });
    assert.deepEqual(machine.node.steps, []);
  });

  it('refuses measurements that this node itself would not meet, and stays free', async () => {
    const lock = new NodeLock();
    policy = () => {
      throw new PolicyError('ERR_JOIN_MEASUREMENTS', 'PCR 4 differs');
    };
    const { client } = await boot(lock);
    await assert.rejects(client().init(order), { code: 'ERR_JOIN_MEASUREMENTS' });
    assert.ok(isZero(machine.tpm.pcrs.get(15)!));
    assert.equal(lock.holder, undefined);
    policy = () => '{}';
    await client().init({ ...order, clusterName: 'second-thought' });
  });

  it('refuses an init on a node that joins', async () => {
    const lock = new NodeLock();
    lock.tryTake('join');
    const { client } = await boot(lock);
    await assert.rejects(client().init(order), { code: 'ERR_NODE_BUSY' });
  });

  it('gives the answer again until it is confirmed, to the same order only, and then to nobody', async () => {
    const first = await boot();
    const answer = await first.client().init(order);
    await first.kill();
    const { client } = await boot();
    for (const [other, code] of [
      [{ initSecret: Buffer.from('a guess') }, 'ERR_INIT_SECRET'],
      [{ kmsUri: `kms://cluster-kms?key=${'11'.repeat(32)}` }, 'ERR_NODE_INITIALIZED'],
      [{ clusterName: 'other' }, 'ERR_INIT_ORDER'],
    ] as const) {
      await assert.rejects(client().init({ ...order, ...other }), { code });
    }
    const phases = machine.node.steps.length;
    assert.deepEqual(await client().init(order), answer);
    const again = machine.node.steps.slice(phases);
    assert.deepEqual(again.slice(0, 3), ['containerd', 'kubelet', 'api']);
    assert.match(again.slice(3).join(), /^kubeadm kubeconfig user [^,]*$/);

    const right = { initSecret: SECRET, clusterId: answer.clusterId };
    for (const [wrong, code] of [
      [{ initSecret: Buffer.from('a guess') }, 'ERR_INIT_SECRET'],
      [{ clusterId: new Uint8Array(32) }, 'ERR_INIT_CONFIRM'],
      [{ clusterId: new Uint8Array() }, 'ERR_INIT_CONFIRM'],
    ] as const) {
      await assert.rejects(client().confirmInit({ ...right, ...wrong }), { code });
    }
    assert.equal(confirmed, 0);
    await client().confirmInit(right);
    assert.equal(confirmed, 1);
    assert.equal((await Journal.load(machine.machine.layout.initJournal))!.complete, true);
    // The answer to a confirmation can be lost, too.
    await client().confirmInit(right);
    await assert.rejects(client().init(order), { code: 'ERR_NODE_INITIALIZED' });
    const lines = await audited();
    assert.deepEqual(lines.at(-3), { ...lines.at(-3), event: 'confirm-init', outcome: 'granted' });
  });

  it('takes no confirmation of an init that has not ended', async () => {
    const { client } = await boot();
    const right = { initSecret: SECRET, clusterId: expectedId };
    await assert.rejects(client().confirmInit(right), { code: 'ERR_INIT_CONFIRM' });
    machine.node.hook = async (step) => {
      if (step === 'daemonsets') throw new Error('killed');
    };
    await assert.rejects(client().init(order), /killed/);
    await assert.rejects(client().confirmInit(right), { code: 'ERR_INIT_CONFIRM' });
    assert.equal((await Journal.load(machine.machine.layout.initJournal))!.complete, false);
  });

  const malformed: Record<string, object> = {
    'no KMS': { kmsUri: '' },
    'another scheme': { kmsUri: 'http://x' },
    'a version with shell in it': { kubernetesVersion: 'v1.37.2; rm -rf /' },
    'an unsupported version': { kubernetesVersion: 'v1.25.7' },
    'a short salt': { measurementSalt: new Uint8Array(31) },
    'no components': { kubernetesComponents: [] },
    'a component over the password file': {
      kubernetesComponents: [
        ...order.kubernetesComponents,
        { ...order.kubernetesComponents[0]!, installPath: '/etc/passwd' },
      ],
    },
    'a component over the journal': {
      kubernetesComponents: [
        ...order.kubernetesComponents,
        { ...order.kubernetesComponents[0]!, installPath: '/run/state/asterism/init-journal.json' },
      ],
    },
    'a cluster name with a path': { clusterName: '../x' },
    'a bad SAN': { apiserverCertSans: ['a b'] },
    'too many SANs': { apiserverCertSans: Array.from({ length: 65 }, (_, i) => `h${i}`) },
    'measurements that are no text': { joinMeasurements: new Uint8Array([0xff, 0xfe]) },
    'too large measurements': { joinMeasurements: new Uint8Array(65_537).fill(32) },
    'a PCR that does not exist': { enforcedPcrs: [24] },
  };
  it('refuses malformed requests before it touches the machine', async () => {
    const lock = new NodeLock();
    const { client } = await boot(lock);
    const one = client();
    for (const [what, change] of Object.entries(malformed)) {
      await assert.rejects(one.init({ ...order, ...change }), { status: 'INVALID_ARGUMENT' }, what);
    }
    assert.deepEqual(machine.node.steps, []);
    assert.equal(lock.holder, undefined);
  });
});
