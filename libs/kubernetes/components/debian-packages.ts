import { createHash } from 'node:crypto';
import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { AsterismError } from '@asterism/errors/errors';
import { PROGRAM_PATH } from '@asterism/runtime/program';
import { networkEnvironment } from './proxy.ts';
import { runTethered } from './tether.ts';

const SUITE = 'bookworm';
const DEFAULT_MIRROR = 'http://deb.debian.org';

/** A Debian package that is installed in a tree. */
export interface DebianPackage {
  readonly name: string;
  readonly version: string;
  readonly architecture: string;
}

/**
 * Makes a tree of Debian packages with mmdebstrap, as they are today, security updates too.
 *
 * @param args mode and packages
 * @param work an empty folder for this alone
 * @param epoch seconds since 1970, for files whose time would be that of the build
 * @returns the tree, below `work`
 */
export async function makeDebian(
  args: readonly string[],
  work: string,
  { epoch, timeoutMs, signal }: { epoch: string; timeoutMs: number; signal: AbortSignal },
): Promise<string> {
  const [root, temporary] = [join(work, 'root'), join(work, 'tmp')];
  await mkdir(temporary);
  await runTethered(['mmdebstrap', '--quiet', '--mode=root', ...args, SUITE, root, ...mirrors()], {
    timeoutMs,
    signal,
    env: {
      ...networkEnvironment(),
      PATH: PROGRAM_PATH,
      LC_ALL: 'C',
      TMPDIR: temporary,
      SOURCE_DATE_EPOCH: epoch,
    },
  });
  return root;
}

/** Sources of apt. A mirror is named by what `debian` and `debian-security` are below. */
function mirrors(): string[] {
  const base = (process.env.ASTERISM_DEBIAN_MIRROR || DEFAULT_MIRROR).replace(/\/+$/, '');
  if (!/^(?:https?|copy):\/\/?[^\s[\]]+$/.test(base)) {
    throw new AsterismError(
      'ERR_DEBIAN_MIRROR',
      `ASTERISM_DEBIAN_MIRROR is ${JSON.stringify(base)}, but should be an address like ${DEFAULT_MIRROR}, which has debian/ and debian-security/ below it`,
    );
  }
  return [
    `deb ${base}/debian ${SUITE} main`,
    `deb ${base}/debian ${SUITE}-updates main`,
    `deb ${base}/debian-security ${SUITE}-security main`,
  ];
}

/**
 * What is installed in a tree, by the records of dpkg.
 * @throws AsterismError ERR_DEBIAN_TREE nothing is: it is not a tree of Debian packages
 */
export async function debianPackages(root: string): Promise<DebianPackage[]> {
  const status = await readFile(join(root, 'var/lib/dpkg/status'), 'utf8');
  const packages: DebianPackage[] = [];
  for (const paragraph of status.split('\n\n')) {
    const field = (name: string) => new RegExp(`^${name}: (.+)$`, 'm').exec(paragraph)?.[1];
    const [name, version, architecture] = [field('Package'), field('Version'), field('Architecture')];
    if (field('Status') !== 'install ok installed') continue;
    if (name === undefined || version === undefined || architecture === undefined) continue;
    packages.push({ name, version, architecture });
  }
  if (packages.length === 0) throw new AsterismError('ERR_DEBIAN_TREE', `${root} has no installed packages`);
  return packages.sort((a, b) => (a.name < b.name ? -1 : 1));
}

/** Names a set of packages with their versions: another one after an update. */
export function idOfPackages(packages: readonly DebianPackage[]): string {
  return createHash('sha256').update(JSON.stringify(packages)).digest('hex').slice(0, 16);
}
