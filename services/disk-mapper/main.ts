import { clusterId } from '@asterism/crypto/derive';
import { stateLayout, TEMPORARY_KEY_FILE } from '@asterism/disk/layout';
import { openKms } from '@asterism/kms/open';
import { AtlsGrpcServer } from '@asterism/rpc/atls-server';
import { serveHealth } from '@asterism/runtime/health-server';
import { createLogger } from '@asterism/runtime/logger';
import { nodeParts } from '@asterism/runtime/node-parts';
import { Registry } from 'prom-client';
import { prepareStateDisk } from './prepare.ts';
import { firstGood } from './race.ts';
import { serveRecovery } from './recovery-server.ts';
import { rejoin } from './rejoin-client.ts';
import { MappedVolume, PlainVolume } from './state-volume.ts';
import { Unlocker } from './unlock.ts';

const HEALTH_PORT = 9104;

const log = createLogger({ name: 'disk-mapper' });
// A member that rebooted may wait here for hours: who looks after it can see that it does.
let missing: string | undefined = 'the state disk is not open yet';
const health = await serveHealth({ port: HEALTH_PORT, registry: new Registry(), missing: () => missing });
const { disk, tpm, issuer, metadata, peers, mapping } = nodeParts(process.env);
const layout = stateLayout();
const volume = disk.mappable
  ? new MappedVolume({ disk, mapping, root: layout.root })
  : new PlainVolume(layout.root);

const stop = new AbortController();
process.once('SIGTERM', () => stop.abort(new Error('SIGTERM')));
process.once('SIGINT', () => stop.abort(new Error('SIGINT')));

async function unlock(diskUuid: string): Promise<void> {
  const unlocker = new Unlocker({
    disk,
    volume,
    layout,
    tpm,
    clusterId: async (secret, salt) => clusterId(secret, salt),
  });
  const { role } = await metadata.self(stop.signal);
  const ways = [(signal: AbortSignal) => rejoin({ diskUuid, metadata, peers, unlocker, log }, signal)];
  // A worker is brought back by the control planes: its port stays closed.
  if (role === 'ControlPlane') {
    ways.push((signal) =>
      serveRecovery(() => new AtlsGrpcServer({ issuer, log }), { diskUuid, openKms, unlocker, log }, signal),
    );
  }
  await firstGood(ways, stop.signal);
}

try {
  const prepared = await prepareStateDisk({
    disk,
    volume,
    tpm,
    temporaryKeyFile: TEMPORARY_KEY_FILE,
    log,
    unlock,
  });
  missing = undefined;
  log.info({ prepared }, 'disk-mapper done');
} catch (err) {
  log.fatal({ err }, 'the state disk is not ready; nothing else starts');
  process.exitCode = 1;
} finally {
  health.closeAllConnections();
  health.close();
}
