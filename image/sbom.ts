import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { NODE_PROGRAMS } from '@asterism/kubernetes/components/catalogue';
import { debianPackages } from '@asterism/kubernetes/components/debian-packages';
import {
  type BillPart,
  debianComponents,
  goPart,
  hashesOf,
  made,
  renderBill,
  together,
} from '@asterism/kubernetes/components/sbom';
import { runChecked } from '@asterism/runtime/program';
import { PINNED_NODE, ROOT } from './bundle.ts';
import { SERVICES_REFERENCE, type ServicesImage } from './services-image.ts';

const NPM_TIMEOUT_MS = 120_000;
const MAX_NPM_OUTPUT = 64 << 20;

interface ImageParts {
  /** Of the image, `sha256:` and 64 hexadecimal digits. */
  readonly reference: string;
  readonly version: string;
  /** The Debian part of the root. */
  readonly debian: string;
  /** Folder with containerd and its tools. */
  readonly nodePrograms: string;
  readonly services: ServicesImage;
  readonly signal: AbortSignal;
}

/**
 * The software bill of materials of an image, as CycloneDX 1.5 JSON: npm packages of the bundles, Debian packages of
 * the root and of the services' container image, Node, the Go programs and the modules linked into each. The same image
 * gives the same bytes.
 */
export async function imageSbom(parts: ImageParts): Promise<string> {
  const { reference, version, nodePrograms } = parts;
  const npm = await npmPart(parts.signal);
  const node = await nodePart();
  const programs = await Promise.all(
    NODE_PROGRAMS.map((program) => goPart(program, join(nodePrograms, program.name))),
  );
  const debian = debianComponents(await debianPackages(parts.debian));
  const [name = '', tag = ''] = SERVICES_REFERENCE.split(':');
  const services = made({ 'bom-ref': SERVICES_REFERENCE, type: 'container', name, version: tag }, [
    ...node.components,
    ...debianComponents(parts.services.packages, 'services/'),
  ]);
  const image = {
    'bom-ref': reference,
    type: 'operating-system' as const,
    name: 'asterism-node-image',
    version,
    hashes: [{ alg: 'SHA-256' as const, content: reference.slice('sha256:'.length) }],
  };
  const all = [npm, node, ...programs, { components: debian, dependencies: [] }, services];
  return renderBill(image, together(all));
}

/** The packages that this clone has installed: those that the bundles are made of are among them. */
async function npmPart(signal: AbortSignal): Promise<BillPart> {
  return JSON.parse(
    await runChecked('npm', ['sbom', '--sbom-format', 'cyclonedx', '--omit', 'dev'], {
      timeoutMs: NPM_TIMEOUT_MS,
      signal,
      cwd: ROOT,
      env: process.env as Record<string, string>,
      maxOutputBytes: MAX_NPM_OUTPUT,
    }),
  );
}

async function nodePart(): Promise<BillPart> {
  const folder = join(PINNED_NODE, '../..');
  const { version } = JSON.parse(await readFile(join(folder, 'package.json'), 'utf8'));
  const purl = `pkg:generic/node@${version}`;
  const hashes = await hashesOf(PINNED_NODE);
  return made({ 'bom-ref': purl, type: 'application', name: 'node', version, purl, hashes }, []);
}
