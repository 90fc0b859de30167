import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { MODULES } from './build-go.ts';
import { linkedModules } from './build-info.ts';
import { sha256OfFile } from './cache.ts';
import type { GoProgram } from './catalogue.ts';
import type { DebianPackage } from './debian-packages.ts';

/** A component of a CycloneDX bill of materials. */
export interface BillComponent {
  readonly 'bom-ref': string;
  readonly type: 'library' | 'application' | 'container' | 'file' | 'operating-system';
  readonly name: string;
  readonly version: string;
  readonly purl?: string;
  readonly hashes?: readonly { readonly alg: 'SHA-256'; readonly content: string }[];
}

/** Components, and which of them are made of which. */
export interface BillPart {
  readonly components: readonly BillComponent[];
  readonly dependencies: readonly { readonly ref: string; readonly dependsOn: readonly string[] }[];
}

/** A program built from Go modules, with every module that is linked into it. */
export async function goPart(program: GoProgram, path: string): Promise<BillPart> {
  const wrapper = await readFile(join(MODULES, program.module, 'go.mod'), 'utf8');
  const [, module = `asterism.invalid/${program.module}`, version = 'unknown'] =
    /^require (\S+) (\S+)$/m.exec(wrapper) ?? [];
  const purl = `pkg:golang/${module}@${version}#cmd/${program.name}`;
  const modules = (await linkedModules(path)).map((linked): BillComponent => {
    const of = `pkg:golang/${linked.path}@${linked.version}`;
    return { 'bom-ref': of, type: 'library', name: linked.path, version: linked.version, purl: of };
  });
  const main = { 'bom-ref': purl, type: 'application' as const, name: program.name, version, purl };
  return made({ ...main, hashes: await hashesOf(path) }, modules);
}

/** Debian packages. @param within start of their references, where the bill has packages of another tree too */
export function debianComponents(packages: readonly DebianPackage[], within = ''): BillComponent[] {
  return packages.map(({ name, version, architecture }) => {
    const purl = `pkg:deb/debian/${name}@${encodeURIComponent(version)}?arch=${architecture}&distro=debian-12`;
    return { 'bom-ref': `${within}${purl}`, type: 'library', name, version, purl };
  });
}

/** A component that is made of others. */
export function made(whole: BillComponent, parts: readonly BillComponent[]): BillPart {
  const dependsOn = [...new Set(parts.map((part) => part['bom-ref']))].sort();
  return { components: [whole, ...parts], dependencies: [{ ref: whole['bom-ref'], dependsOn }] };
}

/** One part of several; what more than one of them has is there once. */
export function together(parts: readonly BillPart[]): BillPart {
  const components = new Map<string, BillComponent>();
  for (const part of parts) for (const one of part.components) components.set(one['bom-ref'], one);
  const dependencies = new Map<string, BillPart['dependencies'][number]>();
  for (const part of parts) for (const one of part.dependencies) dependencies.set(one.ref, one);
  return { components: [...components.values()], dependencies: [...dependencies.values()] };
}

export async function hashesOf(path: string): Promise<NonNullable<BillComponent['hashes']>> {
  return [{ alg: 'SHA-256', content: await sha256OfFile(path) }];
}

/** The bill as text. The same parts give the same bytes. @param whole what all of it is in */
export function renderBill(whole: BillComponent, part: BillPart): string {
  const all = together([part, { components: [], dependencies: made(whole, part.components).dependencies }]);
  const bill = {
    $schema: 'http://cyclonedx.org/schema/bom-1.5.schema.json',
    bomFormat: 'CycloneDX',
    specVersion: '1.5',
    serialNumber: `urn:uuid:${uuidOf(JSON.stringify([whole, part]))}`,
    version: 1,
    metadata: {
      lifecycles: [{ phase: 'build' }],
      tools: [{ vendor: 'Asterism', name: 'asterism' }],
      component: whole,
    },
    ...all,
  };
  return `${JSON.stringify(bill, null, 2)}\n`;
}

/** A UUID of version 8 (own meaning): the same for the same content. */
function uuidOf(content: string): string {
  const bytes = createHash('sha256').update(`sbom of ${content}`).digest().subarray(0, 16);
  bytes[6] = (bytes[6]! & 0x0f) | 0x80;
  bytes[8] = (bytes[8]! & 0x3f) | 0x80;
  return bytes.toString('hex').replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
}
