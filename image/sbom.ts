import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { MODULES } from '@asterism/kubernetes/components/build-go';
import { sha256OfFile } from '@asterism/kubernetes/components/cache';
import { NODE_PROGRAMS } from '@asterism/kubernetes/components/catalogue';
import { runChecked } from '@asterism/runtime/program';
import { PINNED_NODE, ROOT } from './bundle.ts';
import { debianPackages } from './debian.ts';

const NPM_TIMEOUT_MS = 120_000;
const MAX_NPM_OUTPUT = 64 << 20;

interface Component {
  readonly 'bom-ref': string;
  readonly type: 'library' | 'application' | 'operating-system' | 'firmware';
  readonly name: string;
  readonly version: string;
  readonly purl?: string;
  readonly hashes?: readonly { readonly alg: 'SHA-256'; readonly content: string }[];
}

/**
 * The software bill of materials of an image, as CycloneDX 1.5 JSON: npm packages of the bundles, Debian packages of
 * the root, the Node and Go programs. The same image gives the same bytes.
 *
 * @param reference of the image, `sha256:` and 64 hexadecimal digits
 * @param debian the Debian part of the root
 * @param nodePrograms folder with containerd and its tools
 */
export async function imageSbom(
  reference: string,
  version: string,
  debian: string,
  nodePrograms: string,
  signal: AbortSignal,
): Promise<string> {
  const npm = JSON.parse(
    await runChecked('npm', ['sbom', '--sbom-format', 'cyclonedx', '--omit', 'dev'], {
      timeoutMs: NPM_TIMEOUT_MS,
      signal,
      cwd: ROOT,
      env: process.env as Record<string, string>,
      maxOutputBytes: MAX_NPM_OUTPUT,
    }),
  );
  const components = [
    ...npm.components,
    ...(await nodeComponents()),
    ...(await goComponents(nodePrograms)),
    ...(await debianComponents(debian)),
  ];
  const image = {
    'bom-ref': reference,
    type: 'operating-system',
    name: 'asterism-node-image',
    version,
    hashes: [{ alg: 'SHA-256', content: reference.slice('sha256:'.length) }],
  };
  const dependencies = [
    ...npm.dependencies,
    { ref: reference, dependsOn: [...new Set(components.map((component) => component['bom-ref']))].sort() },
  ];
  const bill = {
    $schema: npm.$schema,
    bomFormat: 'CycloneDX',
    specVersion: npm.specVersion,
    serialNumber: `urn:uuid:${uuidOf(reference)}`,
    version: 1,
    metadata: { lifecycles: [{ phase: 'build' }], tools: npm.metadata.tools, component: image },
    components,
    dependencies,
  };
  return `${JSON.stringify(bill, null, 2)}\n`;
}

async function nodeComponents(): Promise<Component[]> {
  const folder = join(PINNED_NODE, '../..');
  const { version } = JSON.parse(await readFile(join(folder, 'package.json'), 'utf8'));
  const purl = `pkg:generic/node@${version}`;
  return [
    { 'bom-ref': purl, type: 'application', name: 'node', version, purl, ...(await hashed(PINNED_NODE)) },
  ];
}

/** The programs that are built from Go modules; the version is that of the module which the wrapper requires. */
async function goComponents(folder: string): Promise<Component[]> {
  const components: Component[] = [];
  for (const { name, module } of NODE_PROGRAMS) {
    const wrapper = await readFile(join(MODULES, module, 'go.mod'), 'utf8');
    const [, path = module, version = 'unknown'] = /^require (\S+) (\S+)$/m.exec(wrapper) ?? [];
    const purl = `pkg:golang/${path}@${version}#cmd/${name}`;
    const hashes = await hashed(join(folder, name));
    components.push({ 'bom-ref': purl, type: 'application', name, version, purl, ...hashes });
  }
  return components;
}

async function debianComponents(root: string): Promise<Component[]> {
  return (await debianPackages(root)).map(({ name, version, architecture }) => {
    const purl = `pkg:deb/debian/${name}@${encodeURIComponent(version)}?arch=${architecture}&distro=debian-12`;
    return { 'bom-ref': purl, type: 'library', name, version, purl };
  });
}

async function hashed(path: string): Promise<Pick<Component, 'hashes'>> {
  return { hashes: [{ alg: 'SHA-256', content: await sha256OfFile(path) }] };
}

/** A UUID of version 8 (own meaning): the same for the same image. */
function uuidOf(reference: string): string {
  const bytes = createHash('sha256').update(`sbom of ${reference}`).digest().subarray(0, 16);
  bytes[6] = (bytes[6]! & 0x0f) | 0x80;
  bytes[8] = (bytes[8]! & 0x3f) | 0x80;
  return bytes.toString('hex').replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
}
