import { readFile, stat, statfs } from 'node:fs/promises';
import { hasDeviceMapper, mappingTargets } from '@asterism/disk/device-mapper';
import { AsterismError } from '@asterism/errors/errors';
import { runChecked, runProgram } from '@asterism/runtime/program';
import { controllerAdvice, missingControllers } from './cgroups.ts';
import { CLUSTERS } from './cluster.ts';

const TIMEOUT_MS = 60_000;

/** Runs a program of the host that must succeed. It ends with this process, so that a removal meets nobody at work. */
export function host(file: string, ...args: string[]): Promise<string> {
  return runChecked('setpriv', ['--pdeathsig', 'KILL', file, ...args], { timeoutMs: TIMEOUT_MS });
}

/** Runs a program whose failure does not matter, because what it removes may be gone already. */
export async function tryHost(file: string, ...args: string[]): Promise<boolean> {
  return (await runProgram(file, args, { timeoutMs: TIMEOUT_MS })).code === 0;
}

/** Programs that the provider calls, and the Debian packages that they come in. */
const PROGRAMS: Readonly<Record<string, string>> = {
  bash: 'bash',
  dmsetup: 'dmsetup',
  flock: 'util-linux',
  ip: 'iproute2',
  iptables: 'iptables',
  losetup: 'mount',
  nsenter: 'util-linux',
  setpriv: 'util-linux',
  swtpm: 'swtpm',
  swtpm_setup: 'swtpm-tools',
  tar: 'tar',
  unshare: 'util-linux',
};

/** What the nodes use of the kernel and cannot load themselves. Built-in ones, or a host without modprobe, are fine. */
const MODULES = ['overlay', 'squashfs', 'loop', 'veth', 'vxlan', 'br_netfilter', 'nf_conntrack'];

/** What cryptsetup needs of the kernel for a volume with integrity. */
const MAPPING_MODULES = ['dm_mod', 'dm_crypt', 'dm_integrity'];
const MAPPING_TARGETS = ['crypt', 'integrity'];

/** Whether this kernel can map the nodes' state disks. Loads its modules where that helps. */
export async function canMapStateDisks(): Promise<boolean> {
  for (const name of MAPPING_MODULES) await tryHost('sh', '-c', `modprobe -q ${name}`);
  if (!(await hasDeviceMapper())) return false;
  const targets = await mappingTargets();
  return MAPPING_TARGETS.every((target) => targets.includes(target));
}

/** Seen with Kubernetes 1.37: resident memory and disk of a node of each kind, with some room. */
const NEEDS = {
  ControlPlane: { memoryMiB: 1200, diskMiB: 3000 },
  Worker: { memoryMiB: 400, diskMiB: 2000 },
} as const;

/**
 * Checks that this machine can run nodes, before anything is made. Loads kernel modules where that helps.
 * @param stateDiskMiB size of each node's state disk
 * @throws AsterismError ERR_HOST with every reason and what to do
 */
export async function checkHost(roles: readonly (keyof typeof NEEDS)[], stateDiskMiB: number): Promise<void> {
  if (process.getuid?.() !== 0)
    throw new AsterismError(
      'ERR_HOST',
      'this machine cannot run local nodes: they are made by root; use sudo',
    );
  const programs = await missingPrograms();
  // A mapped disk is written over from end to end when it is formatted; else its file takes room as it fills.
  const taken = programs.length === 0 && (await canMapStateDisks()) ? stateDiskMiB : 0;
  const problems = [...programs, ...(await missingFromKernel()), ...(await missingRoom(roles, taken))];
  if (problems.length > 0)
    throw new AsterismError('ERR_HOST', `this machine cannot run local nodes:\n- ${problems.join('\n- ')}`);
}

async function missingPrograms(): Promise<string[]> {
  const packages = new Set<string>();
  for (const [program, from] of Object.entries(PROGRAMS)) {
    if (!(await tryHost('sh', '-c', `command -v ${program}`))) packages.add(from);
  }
  if (packages.size === 0) return [];
  const names = [...packages].join(' ');
  return [`programs are missing; run: apt-get install -y --no-install-recommends ${names}`];
}

async function missingFromKernel(): Promise<string[]> {
  const problems: string[] = [];
  for (const name of MODULES) await tryHost('sh', '-c', `modprobe -q ${name}`);
  const filesystems = await readFile('/proc/filesystems', 'utf8').catch(() => '');
  for (const name of ['squashfs', 'overlay']) {
    if (!new RegExp(`\\b${name}\\b`).test(filesystems))
      problems.push(`the kernel has no ${name}, or may not load it; try: modprobe ${name}`);
  }
  if (!(await stat('/dev/loop-control').catch(() => undefined)))
    problems.push('there are no loop devices; try: modprobe loop');
  const controllers = await missingControllers();
  if (controllers.length > 0) problems.push(`cgroups lack ${controllers.join(', ')}; ${controllerAdvice()}`);
  return problems;
}

async function missingRoom(roles: readonly (keyof typeof NEEDS)[], stateDiskMiB: number): Promise<string[]> {
  const problems: string[] = [];
  const sum = (what: 'memoryMiB' | 'diskMiB', least = 0) =>
    roles.reduce((total, role) => total + Math.max(least, NEEDS[role][what]), 0);
  const available = /^MemAvailable:\s+(\d+) kB$/m.exec(await readFile('/proc/meminfo', 'utf8'))?.[1];
  const memory = Math.floor(Number(available) / 1024);
  if (memory < sum('memoryMiB'))
    problems.push(
      `${memory} MiB of memory are available, ${roles.length} nodes need ${sum('memoryMiB')}; end something, or make fewer nodes`,
    );
  const { bavail, bsize } = await statfs(CLUSTERS).catch(() => statfs('/var/lib'));
  const disk = Math.floor((bavail * bsize) / 2 ** 20);
  const needed = sum('diskMiB', stateDiskMiB);
  if (disk < needed)
    problems.push(
      `${disk} MiB of disk are free below ${CLUSTERS}, ${roles.length} nodes need ${needed}; make room, or make fewer nodes`,
    );
  return problems;
}
