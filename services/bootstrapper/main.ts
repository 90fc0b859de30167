import { setTimeout as sleep } from 'node:timers/promises';
import { clusterId } from '@asterism/crypto/derive';
import { stateLayout } from '@asterism/disk/layout';
import { masterSecretOf, openKms } from '@asterism/kms/open';
import { AtlsGrpcServer } from '@asterism/rpc/atls-server';
import { API } from '@asterism/rpc/gen/init_pb';
import { AuditLog } from '@asterism/runtime/audit-log';
import { createLogger } from '@asterism/runtime/logger';
import { CLUSTER_ID_PCR } from '@asterism/runtime/machine-tpm';
import { nodeParts } from '@asterism/runtime/node-parts';
import { runChecked } from '@asterism/runtime/program';
import { Health } from './health.ts';
import type { InitMachine } from './init-phases.ts';
import { Initializer, type Keys } from './initializer.ts';
import { JoinClient, TicketExpiredError } from './join-client.ts';
import { joinPolicy } from './join-policy.ts';
import { LocalKubernetesNode } from './local-kubernetes-node.ts';
import { NodeLock } from './node-lock.ts';
import { SecretGuard } from './secret-guard.ts';
import { initService } from './service.ts';
import { decideStart } from './start.ts';

const AUDIT_LOG = '/run/state/asterism/audit/bootstrapper.log';
const INIT_PORT = 9000;
const HEALTH_PORT = 9103;
/** A server that stops in the same breath as a handler answers cuts the answer off. */
const ANSWER_LEAVES_MS = 250;

const log = createLogger({ name: 'bootstrapper' });
const parts = nodeParts(process.env);
const layout = stateLayout();
const health = new Health();
await health.listen(HEALTH_PORT);

const stop = new AbortController();
process.once('SIGTERM', () => stop.abort(new Error('SIGTERM')));
process.once('SIGINT', () => stop.abort(new Error('SIGINT')));

let initializer: Initializer | undefined;
const node = new LocalKubernetesNode({
  stateImages: layout.images,
  nodeImages: '/usr/lib/asterism/images',
  manifests: '/usr/lib/asterism/deploy',
  log: (line) => {
    log.info({ line }, 'program');
    initializer?.log(line);
  },
});
const machine: InitMachine = {
  tpm: parts.tpm,
  disk: parts.disk,
  layout,
  node,
  attestationVariant: parts.variant,
};
const keys: Keys = {
  open: openKms,
  masterSecretOf,
  clusterId: async (secret, salt) => clusterId(secret, salt),
};
const lock = new NodeLock();

/** Serves init until its answer is delivered or the node joins a cluster; waits out SIGTERM. */
async function serveInit(until: AbortSignal): Promise<void> {
  const guard = new SecretGuard(await parts.metadata.initSecretHash());
  initializer = new Initializer({ machine, metadata: parts.metadata, keys, policy: joinPolicy, lock, log });
  const audit = await AuditLog.open(AUDIT_LOG);
  const server = new AtlsGrpcServer({ issuer: parts.issuer, log });
  const done = new Promise<void>((resolve) => {
    until.addEventListener('abort', () => resolve(), { once: true });
    server.addService(API, initService({ initializer: initializer!, guard, audit, onDelivered: resolve }));
  });
  await server.listen(INIT_PORT);
  log.info({ port: INIT_PORT }, 'init is served');
  await done;
  await sleep(ANSWER_LEAVES_MS);
  if (until.aborted) await initializer.stop();
  await server.stop();
  await audit.close();
}

async function startAsMember(): Promise<void> {
  await node.startContainerd(stop.signal);
  await node.startKubelet(stop.signal);
  health.set('member');
  log.info({}, 'this node is a member; containerd and the kubelet run');
}

async function run(): Promise<void> {
  const pcr = (await parts.tpm.readPcrs()).get(CLUSTER_ID_PCR);
  if (pcr === undefined) throw new Error('the TPM has no SHA-256 bank with PCR 15');
  const start = await decideStart(pcr, layout);
  const { uuid } = await parts.disk.header();
  log.info({ start: start.kind, diskUuid: uuid }, 'bootstrapper started');
  await tell(`bootstrapper started (${start.kind}), disk ${uuid}`);
  const joining = new JoinClient({ machine, metadata: parts.metadata, peers: parts.peers, keys, lock, log });
  lock.onTaken((by) => health.set(by === 'init' ? 'initialising' : 'joining'));
  switch (start.kind) {
    case 'member':
      return startAsMember();
    case 'resume-join':
      health.set('joining');
      await joining.resume(start.journal, stop.signal);
      return startAsMember();
    case 'resume-init':
      health.set('waiting');
      await serveInit(stop.signal);
      return;
    case 'fresh': {
      health.set('waiting');
      const { role } = await parts.metadata.self();
      const ended = new AbortController();
      const until = AbortSignal.any([stop.signal, ended.signal]);
      const ways: Promise<unknown>[] = [joining.run(until)];
      // A worker makes no cluster: its port stays closed.
      if (role === 'ControlPlane') {
        const noMoreInit = new AbortController();
        lock.onTaken((by) => {
          if (by === 'join') noMoreInit.abort();
        });
        const init = serveInit(AbortSignal.any([until, noMoreInit.signal]));
        // An init server that a join has stopped has nothing to say about how this ends.
        ways.push(init.then(() => (lock.holder === 'join' ? ways[0] : undefined)));
      }
      try {
        await Promise.race(ways);
      } finally {
        ended.abort();
        await Promise.allSettled(ways);
      }
      health.set('member');
    }
  }
}

/** A line for whoever runs the machine; nothing depends on its arrival. */
async function tell(line: string): Promise<void> {
  await parts.metadata.log(line).catch((err) => log.warn({ err }, 'the provider does not take log lines'));
}

try {
  await run();
  log.info({}, 'bootstrapper done');
  await tell('bootstrapper done');
} catch (err) {
  if (err instanceof TicketExpiredError) {
    log.error({ err }, 'giving up the state disk');
    await parts.disk.setInitialized(false);
    await runChecked('systemctl', ['reboot', '--no-block'], { timeoutMs: 30_000 });
  } else if (!stop.signal.aborted) {
    health.set('failed');
    log.fatal({ err }, 'bootstrapper stopped');
    await tell(`bootstrapper stopped: ${err instanceof Error ? err.message : err}`);
    process.exitCode = 1;
  }
} finally {
  health.close();
}
