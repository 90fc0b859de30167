import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { AsterismError } from '@asterism/errors/errors';
import { CLUSTERS } from './cluster.ts';

/** A setting of the host's kernel that clusters need higher. The last of them that goes puts it back. */
interface Limit {
  readonly path: string;
  /** Where the host's own value is kept meanwhile. */
  readonly saved: string;
  readonly wanted: number;
  /** Said where it cannot be raised. */
  readonly advice: string;
}

// systemd, containerd and the kubelet of every node watch files, all as the host's root, who may have 128 watchers by
// default: three or four nodes.
const WATCHERS: Limit = {
  path: '/proc/sys/fs/inotify/max_user_instances',
  saved: join(CLUSTERS, 'max_user_instances.before'),
  wanted: 8192,
  advice:
    'nodes need more file watchers than this machine allows; run: sysctl fs.inotify.max_user_instances=8192',
};

// Packets of nodes with egress to what is beyond the host.
const FORWARDING: Limit = {
  path: '/proc/sys/net/ipv4/ip_forward',
  saved: join(CLUSTERS, 'ip_forward.before'),
  wanted: 1,
  advice:
    'nodes with egress need this machine to forward packets; run: sysctl net.ipv4.ip_forward=1, or set provider.local.egress: false',
};

/** @throws AsterismError ERR_HOST the limit is too low and cannot be raised */
export async function raiseHostLimits(): Promise<void> {
  await raise(WATCHERS);
}

/**
 * @returns whether the host forwards packets only because of clusters
 * @throws AsterismError ERR_HOST it does not, and cannot be made to
 */
export async function raiseForwarding(): Promise<boolean> {
  await raise(FORWARDING);
  return (await before(FORWARDING)) !== undefined;
}

async function raise({ path, saved, wanted, advice }: Limit): Promise<void> {
  const present = Number(await readFile(path, 'utf8'));
  if (present >= wanted) return;
  await mkdir(CLUSTERS, { recursive: true, mode: 0o700 });
  // The first value stays: a second one would be our own.
  await writeFile(saved, String(present), { flag: 'wx' }).catch(() => {});
  try {
    await writeFile(path, String(wanted));
  } catch (cause) {
    throw new AsterismError('ERR_HOST', advice, { cause });
  }
}

const before = ({ saved }: Limit): Promise<string | undefined> =>
  readFile(saved, 'utf8').catch(() => undefined);

/** Puts the host's own limits back. For when there is no cluster any more. */
export const restoreHostLimits = (): Promise<void> => restore(WATCHERS);

/** For when no cluster with egress is there any more. */
export const restoreForwarding = (): Promise<void> => restore(FORWARDING);

async function restore(limit: Limit): Promise<void> {
  const value = await before(limit);
  // Half written when the machine went down, it may be empty.
  if (value !== undefined && /^\d+$/.test(value)) await writeFile(limit.path, value).catch(() => {});
  await rm(limit.saved, { force: true });
}
