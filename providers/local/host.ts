import { readFile, stat } from 'node:fs/promises';
import { AsterismError } from '@asterism/errors/errors';
import { runChecked, runProgram } from '@asterism/runtime/program';

const TIMEOUT_MS = 20_000;

/** Runs a program of the host that must succeed. */
export function host(file: string, ...args: string[]): Promise<string> {
  return runChecked(file, args, { timeoutMs: TIMEOUT_MS });
}

/** Runs a program whose failure does not matter, because what it removes may be gone already. */
export async function tryHost(file: string, ...args: string[]): Promise<boolean> {
  return (await runProgram(file, args, { timeoutMs: TIMEOUT_MS })).code === 0;
}

const PROGRAMS: Readonly<Record<string, string>> = {
  ip: 'iproute2',
  unshare: 'util-linux',
  nsenter: 'util-linux',
  swtpm: 'swtpm',
  swtpm_setup: 'swtpm-tools',
  losetup: 'mount',
};

/**
 * Checks that this machine can run nodes, before anything is made.
 * @throws AsterismError ERR_HOST with every reason and what to do
 */
export async function checkHost(): Promise<void> {
  const problems: string[] = [];
  if (process.getuid?.() !== 0) problems.push('nodes are made by root; run it as root (sudo)');
  const filesystems = await readFile('/proc/filesystems', 'utf8').catch(() => '');
  for (const name of ['squashfs', 'overlay']) {
    if (!new RegExp(`\\b${name}\\b`).test(filesystems))
      problems.push(`the kernel has no ${name}; try: modprobe ${name}`);
  }
  if (!(await stat('/dev/loop-control').catch(() => undefined)))
    problems.push('there are no loop devices; try: modprobe loop');
  const missing = new Set<string>();
  for (const [program, from] of Object.entries(PROGRAMS)) {
    if (!(await tryHost('sh', '-c', `command -v ${program}`))) missing.add(from);
  }
  if (missing.size > 0) problems.push(`programs are missing; run: apt-get install ${[...missing].join(' ')}`);
  if (problems.length > 0) {
    throw new AsterismError('ERR_HOST', `this machine cannot run local nodes:\n- ${problems.join('\n- ')}`);
  }
}

/** Whether the kernel can map an encrypted disk. */
export async function hasDeviceMapper(): Promise<boolean> {
  return (await stat('/dev/mapper/control').catch(() => undefined)) !== undefined;
}
