import { readFile } from 'node:fs/promises';
import { AsterismError } from '@asterism/errors/errors';

/** A Go module, as the linker wrote it down. */
export interface GoModule {
  readonly path: string;
  readonly version: string;
}

const MAGIC = Buffer.from('\xff Go buildinf:', 'latin1');
const HEADER_BYTES = 32;
const ALIGNMENT = 16;
/** Since Go 1.18 two strings follow the header, each after its length. */
const INLINE_STRINGS = 2;
const FLAGS_OFFSET = 15;
/** Marks at both ends of the list of modules. */
const SENTINEL_BYTES = 16;

/**
 * The modules that are linked into a Go program, its own left out: what `go version -m` prints as `dep`.
 * @throws AsterismError ERR_BUILD_INFO the file has no such record
 */
export async function linkedModules(path: string): Promise<GoModule[]> {
  const text = findModuleText(await readFile(path));
  if (text === undefined) {
    throw new AsterismError('ERR_BUILD_INFO', `${path} does not say which modules it is made of`);
  }
  const modules: GoModule[] = [];
  for (const line of text.split('\n')) {
    const [kind, name, version] = line.split('\t');
    if (name === undefined || version === undefined) continue;
    if (kind === 'dep') modules.push({ path: name, version });
    // What stands in for the module before it.
    if (kind === '=>') modules[modules.length - 1] = { path: name, version };
  }
  return modules;
}

/** Programs that can read such records have the magic bytes as a constant, too. */
function findModuleText(program: Buffer): string | undefined {
  for (let at = program.indexOf(MAGIC); at >= 0; at = program.indexOf(MAGIC, at + 1)) {
    if (at % ALIGNMENT !== 0 || (program[at + FLAGS_OFFSET]! & INLINE_STRINGS) === 0) continue;
    const version = stringAt(program, at + HEADER_BYTES);
    const modules = version && stringAt(program, version.end);
    if (modules === undefined || modules.bytes.length <= 2 * SENTINEL_BYTES) continue;
    return modules.bytes.subarray(SENTINEL_BYTES, -SENTINEL_BYTES).toString('utf8');
  }
  return undefined;
}

function stringAt(program: Buffer, start: number): { bytes: Buffer; end: number } | undefined {
  let length = 0;
  let at = start;
  for (let shift = 0; ; shift += 7) {
    const byte = program[at++];
    if (byte === undefined || shift > 21) return undefined;
    length |= (byte & 0x7f) << shift;
    if (byte < 0x80) break;
  }
  return at + length > program.length
    ? undefined
    : { bytes: program.subarray(at, at + length), end: at + length };
}
