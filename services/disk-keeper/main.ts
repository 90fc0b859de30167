import { AtlsGrpcServer } from '@asterism/rpc/atls-server';
import { API } from '@asterism/rpc/gen/disk_pb';
import { AuditLog } from '@asterism/runtime/audit-log';
import { FairTurns } from '@asterism/runtime/fair-turns';
import { createLogger } from '@asterism/runtime/logger';
import { nodeParts } from '@asterism/runtime/node-parts';
import { HANDSHAKES, RateLimiter } from '@asterism/runtime/rate-limiter';
import { passedSocket, untilIdle } from './activation.ts';
import { diskKeeper } from './service.ts';

const AUDIT_LOG = '/run/state/asterism/audit/disk-keeper.log';
const IDLE_MS = 30_000;

const log = createLogger({ name: 'disk-keeper' });
const stop = new AbortController();
process.once('SIGTERM', () => stop.abort(new Error('SIGTERM')));
process.once('SIGINT', () => stop.abort(new Error('SIGINT')));

try {
  const socket = passedSocket(process.env, process.pid);
  const { disk, tpm, issuer, metadata, peers } = nodeParts(process.env);
  const audit = await AuditLog.open(AUDIT_LOG);
  const server = new AtlsGrpcServer({
    issuer,
    log,
    maxRequestBytes: 1024,
    maxConcurrentCalls: 1,
    maxConnections: 64,
    maxConnectionsPerAddress: 4,
    handshakes: new RateLimiter(HANDSHAKES),
  });
  const limiter = new RateLimiter({ burst: 10, perSecond: 0.5 });
  const turns = new FairTurns();
  server.addService(API, diskKeeper({ disk, tpm, metadata, peers, audit, log, limiter, turns }));
  await server.listen(socket);
  log.info({}, 'serving');
  const connections = (): number => server.connections.served + server.connections.pending;
  await untilIdle(connections, IDLE_MS, stop.signal);
  // A change that has begun goes on without its caller. (Cut off, it would be taken up by the next call.)
  await turns.take('none', async () => {});
  await server.stop();
  await audit.close();
  log.info({}, 'nobody is there; stopped until the next call');
} catch (err) {
  log.fatal({ err }, 'the disk-keeper cannot serve');
  process.exitCode = 1;
} finally {
  process.exit();
}
