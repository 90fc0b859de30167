import { stateLayout } from '@asterism/disk/layout';
import { AtlsGrpcServer } from '@asterism/rpc/atls-server';
import { AuditLog } from '@asterism/runtime/audit-log';
import { createLogger } from '@asterism/runtime/logger';
import { nodeParts } from '@asterism/runtime/node-parts';
import { runChecked } from '@asterism/runtime/program';
import { HANDSHAKES, RateLimiter } from '@asterism/runtime/rate-limiter';
import { Health } from './health.ts';
import type { InitMachine } from './init-phases.ts';
import { MAX_REQUEST_BYTES, serveInit } from './init-server.ts';
import type { Initializer } from './initializer.ts';
import { JoinClient, TicketExpiredError } from './join-client.ts';
import { joinPolicy } from './join-policy.ts';
import { live } from './life.ts';
import { LocalKubernetesNode } from './local-kubernetes-node.ts';
import { MachineKeys } from './machine-keys.ts';
import { NodeLock } from './node-lock.ts';
import { SecretGuard } from './secret-guard.ts';

const AUDIT_LOG = '/run/state/asterism/audit/bootstrapper.log';
const INIT_PORT = 9000;
const HEALTH_PORT = 9103;
const STOP_LIMIT_MS = 20_000;

const log = createLogger({ name: 'bootstrapper' });
const health = new Health();
await health.listen(HEALTH_PORT);

const stop = new AbortController();
for (const signal of ['SIGTERM', 'SIGINT'] as const) {
  process.once(signal, () => {
    log.info({ signal }, 'stopping');
    setTimeout(() => {
      log.fatal({}, `not stopped after ${STOP_LIMIT_MS} ms`);
      process.exit(1);
    }, STOP_LIMIT_MS).unref();
    stop.abort(new Error(signal));
  });
}

const parts = nodeParts(process.env);
const layout = stateLayout();
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
const { tpm, disk, metadata, issuer, peers, variant } = parts;
const machine: InitMachine = { tpm, disk, layout, node, attestationVariant: variant };
const keys = new MachineKeys(`${layout.root}/asterism/wrapped-keys`);
const lock = new NodeLock();

/** A line for whoever runs the machine; nothing depends on its arrival. */
async function tell(line: string): Promise<void> {
  await metadata.log(line).catch((err) => log.warn({ err }, 'the provider does not take log lines'));
}

try {
  await live(
    {
      tpm,
      layout,
      node,
      metadata,
      joining: new JoinClient({ machine, metadata, peers, keys, lock, log }),
      lock,
      log,
      onPhase: (phase) => health.set(phase),
      async onStart(start) {
        const { uuid } = await disk.header();
        log.info({ start, diskUuid: uuid }, 'bootstrapper started');
        await tell(`bootstrapper started (${start}), disk ${uuid}`);
      },
      async serveInit(options, until) {
        const guard = new SecretGuard(await metadata.initSecretHash());
        const audit = await AuditLog.open(AUDIT_LOG);
        const server = new AtlsGrpcServer({
          issuer,
          log,
          maxRequestBytes: MAX_REQUEST_BYTES,
          maxConcurrentCalls: 4,
          maxConnections: 64,
          handshakes: new RateLimiter(HANDSHAKES),
        });
        const onServing = (serving: Initializer): void => {
          initializer = serving;
        };
        const shared = { machine, metadata, keys, policy: joinPolicy, lock, log };
        try {
          return await serveInit(
            { ...shared, ...options, guard, audit, server, port: INIT_PORT, onServing },
            until,
          );
        } finally {
          await audit.close();
        }
      },
    },
    stop.signal,
  );
  log.info({}, 'bootstrapper done');
  await tell('bootstrapper done');
} catch (err) {
  if (err instanceof TicketExpiredError) {
    log.error({ err }, 'giving up the state disk');
    await disk.setInitialized(false);
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
