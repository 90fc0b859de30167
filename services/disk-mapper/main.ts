import { join } from 'node:path';
import { clusterId } from '@asterism/crypto/derive';
import { stateLayout, TEMPORARY_KEY_FILE } from '@asterism/disk/layout';
import { openKeyHome, openStore } from '@asterism/kms/open';
import { AtlsGrpcServer } from '@asterism/rpc/atls-server';
import { serveHealth } from '@asterism/runtime/health-server';
import { createLogger } from '@asterism/runtime/logger';
import { nodeParts } from '@asterism/runtime/node-parts';
import { HANDSHAKES, RateLimiter } from '@asterism/runtime/rate-limiter';
import { Registry } from 'prom-client';
import { MemberAudit } from './audit.ts';
import { prepareStateDisk } from './prepare.ts';
import { firstGood, type Way } from './race.ts';
import { serveRecovery } from './recovery-server.ts';
import { rejoin } from './rejoin-client.ts';
import { knownRole } from './role.ts';
import { MappedVolume, PlainVolume } from './state-volume.ts';
import { Unlocker } from './unlock.ts';
import { untilAborted } from './until.ts';

const HEALTH_PORT = 9104;

const log = createLogger({ name: 'disk-mapper' });
const stop = new AbortController();
process.once('SIGTERM', () => stop.abort(new Error('SIGTERM')));
process.once('SIGINT', () => stop.abort(new Error('SIGINT')));
const { signal } = stop;

// A member that rebooted may wait here for hours: who looks after it can see that it does.
let missing: string | undefined = 'the state disk is not open yet';
await serveHealth({ port: HEALTH_PORT, registry: new Registry(), missing: () => missing });
const { disk, tpm, issuer, metadata, peers, mapping } = nodeParts(process.env);
const layout = stateLayout();
const volume = disk.mappable
  ? new MappedVolume({ disk, mapping, root: layout.root })
  : new PlainVolume(layout.root);

async function unlock(diskUuid: string): Promise<void> {
  const audit = new MemberAudit(join(layout.root, 'asterism/audit/disk-mapper.log'));
  const unlocker = new Unlocker({
    disk,
    volume,
    layout,
    tpm,
    diskUuid,
    audit,
    clusterId: async (secret, salt) => clusterId(secret, salt),
  });
  const ways: Way<void>[] = [
    { name: 'rejoin', run: (until) => rejoin({ diskUuid, metadata, peers, unlocker, audit, log }, until) },
    {
      name: 'recovery',
      async run(until) {
        // A worker is brought back by the control planes: its port stays closed.
        if ((await knownRole(metadata, log, until)) === 'Worker') await untilAborted(until);
        const handshakes = new RateLimiter(HANDSHAKES);
        const limits = { maxRequestBytes: 128 * 1024, maxConnections: 64, handshakes };
        const makeServer = () => new AtlsGrpcServer({ issuer, log, ...limits });
        const keyToken = async () => (await disk.header()).keyToken;
        await serveRecovery(
          makeServer,
          { diskUuid, keyToken, openHome: openKeyHome, openStore, unlocker, audit, log },
          until,
        );
      },
    },
  ];
  await firstGood(ways, log, signal);
}

try {
  const prepared = await prepareStateDisk({
    disk,
    volume,
    tpm,
    temporaryKeyFile: TEMPORARY_KEY_FILE,
    log,
    unlock,
    signal,
  });
  missing = undefined;
  log.info({ prepared }, 'disk-mapper done');
} catch (err) {
  if (signal.aborted) log.info({ reason: String(signal.reason) }, 'stopping; the state disk is not open');
  else {
    log.fatal({ err }, 'the state disk is not ready; nothing else starts');
    process.exitCode = 1;
  }
} finally {
  // A handshake that a silent peer keeps in the making would hold this process, and whoever waits for it, for longer.
  process.exit();
}
