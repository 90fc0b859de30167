import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { moveIntoPlace } from './cache.ts';
import type { KubernetesRelease } from './catalogue.ts';
import type { DebianPackage } from './debian-packages.ts';
import { type BillPart, debianComponents, goPart, hashesOf, made, renderBill, together } from './sbom.ts';

/** Beside components.json. */
export const COMPONENTS_SBOM = 'sbom.cdx.json';

/**
 * Writes the bill of materials of a release (CycloneDX 1.5): its programs with the Go modules linked into each, its
 * images with the programs and Debian packages in each.
 *
 * @param packages the Debian packages in each image, by its name
 */
export async function writeComponentsSbom(
  release: KubernetesRelease,
  folder: string,
  packages: ReadonlyMap<string, readonly DebianPackage[]>,
): Promise<void> {
  const parts: BillPart[] = [];
  const programs = new Map<string, BillPart>();
  for (const program of release.programs) {
    const part = await goPart(program, join(folder, 'bin', program.name));
    programs.set(program.name, part);
    parts.push(part);
  }
  for (const image of release.images) {
    const [name = '', version = ''] = image.reference.split(/:(?=[^:]*$)/);
    const hashes = await hashesOf(join(folder, 'images', `${image.name}.tar`));
    const ref = { 'bom-ref': image.reference, type: 'container' as const, name, version, hashes };
    const contents = Object.values(image.programs).flatMap((one) => programs.get(one)?.components[0] ?? []);
    const debian = debianComponents(packages.get(image.name) ?? [], `${image.name}/`);
    parts.push(made(ref, [...contents, ...debian]));
  }
  const name = 'asterism-kubernetes-components';
  const whole = {
    'bom-ref': `${name}@${release.version}`,
    type: 'application' as const,
    name,
    version: release.version,
  };
  const temporary = join(folder, `.${COMPONENTS_SBOM}`);
  await writeFile(temporary, renderBill(whole, together(parts)));
  await moveIntoPlace(temporary, join(folder, COMPONENTS_SBOM));
}
