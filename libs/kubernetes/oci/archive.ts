import { createHash } from 'node:crypto';
import { chmod, mkdir, mkdtemp, rename, rm, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { runChecked } from '@asterism/runtime/program';
import { moveIntoPlace, sha256OfFile } from '../components/cache.ts';

export interface ImageConfig {
  /** Name the image is imported under. */
  readonly reference: string;
  /** Further names it is imported under. */
  readonly aliases?: readonly string[];
  readonly entrypoint?: readonly string[];
  readonly user?: string;
  readonly env?: readonly string[];
  readonly workingDirectory?: string;
}

const TAR_TIMEOUT_MS = 300_000;
/** Flags of GNU tar: the same tree gives the same bytes: sorted, without owners and times. */
export const DETERMINISTIC = [
  '--sort=name',
  '--mtime=@0',
  '--owner=0',
  '--group=0',
  '--numeric-owner',
  '--format=ustar',
];

/** For files whose modes nobody has set: what the umask has left of them does not count. */
const ANY_UMASK = '--mode=u+rwX,go+rX,go-w';

/** Packs a folder as a deterministic tar, each file readable for all and writable for its owner alone. */
export async function tarFolder(folder: string, to: string, signal?: AbortSignal): Promise<void> {
  await tar(folder, to, [ANY_UMASK], signal);
}

async function tar(
  folder: string,
  to: string,
  modes: readonly string[],
  signal?: AbortSignal,
): Promise<void> {
  await runChecked('tar', [...DETERMINISTIC, ...modes, '-C', folder, '-cf', to, '.'], {
    timeoutMs: TAR_TIMEOUT_MS,
    ...(signal && { signal }),
  });
}

/**
 * Writes an image of one layer as an archive that `ctr images import` and `docker load` take. The result depends on
 * the files alone; it appears under its name only when whole.
 *
 * @param root folder that becomes the root file system of the image, with the modes that its files have
 */
export async function writeImageArchive(
  root: string,
  config: ImageConfig,
  to: string,
  signal?: AbortSignal,
): Promise<void> {
  await mkdir(dirname(to), { recursive: true });
  const work = await mkdtemp(join(dirname(to), '.image-'));
  try {
    const layer = join(work, 'layer.tar');
    await chmod(root, 0o755);
    await tar(root, layer, [], signal);
    const diffId = await sha256OfFile(layer);
    const image = JSON.stringify({
      architecture: process.arch === 'x64' ? 'amd64' : process.arch,
      os: 'linux',
      config: {
        Env: config.env ?? ['PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'],
        ...(config.entrypoint && { Entrypoint: config.entrypoint }),
        ...(config.user && { User: config.user }),
        ...(config.workingDirectory && { WorkingDir: config.workingDirectory }),
      },
      rootfs: { type: 'layers', diff_ids: [`sha256:${diffId}`] },
      history: [{ created: '1970-01-01T00:00:00Z', created_by: 'asterism' }],
    });
    const imageId = createHash('sha256').update(image).digest('hex');
    const tree = join(work, 'tree');
    await mkdir(tree);
    await writeFile(join(tree, `${imageId}.json`), image);
    await rename(layer, join(tree, `${diffId}.tar`));
    const names = [config.reference, ...(config.aliases ?? [])];
    const manifest = [{ Config: `${imageId}.json`, RepoTags: names, Layers: [`${diffId}.tar`] }];
    await writeFile(join(tree, 'manifest.json'), JSON.stringify(manifest));
    await tarFolder(tree, join(work, 'image.tar'), signal);
    await moveIntoPlace(join(work, 'image.tar'), to);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}
