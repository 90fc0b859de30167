import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { goProgram } from './go-program.ts';
import { type GoogleFront, startGoogleFront } from './google-front.ts';

const START_TIMEOUT_MS = 15_000;
const SCOPE = 'https://www.googleapis.com/auth/cloudkms';
const RING = 'projects/project/locations/europe-west3/keyRings/ring';

/**
 * Google Cloud KMS on loopback.
 *
 * The emulators that others publish (github.com/blackwell-systems/gcp-kms-emulator, github.com/winor30/fake-cloud-kms)
 * are not to be had from the module proxy, and those of PyPI do not encrypt (drongo) or have no KMS (cloudbox,
 * gcplocal). So it is testkit/go/gcp-kms: routes, messages and JSON of Google's own descriptors, the cryptography of Go.
 * Callers are checked by {@link GoogleFront}.
 */
export interface GcpKms extends AsyncDisposable {
  readonly front: GoogleFront;
  /** Parameters for keyName. */
  parameters(keyName: string): Record<string, string>;
  /** A new symmetric key. */
  createKey(keyName: string, purpose?: string): Promise<void>;
  /** A new version, which encrypts from now on. @returns its name */
  rotate(keyName: string): Promise<string>;
  setState(keyName: string, version: number, state: 'ENABLED' | 'DISABLED'): Promise<void>;
  destroy(keyName: string, version: number): Promise<void>;
  kill(): Promise<void>;
  /** After {@link kill}: its keys are there again. */
  start(): Promise<void>;
}

/** @returns the reason to skip where it cannot be built; under continuous integration that is an error */
export function gcpKmsProgram(): Promise<{ program: string } | { skip: string }> {
  return goProgram('gcp-kms', '.');
}

export async function startGcpKms(
  program: string,
  options: { readonly host?: string; readonly tls?: boolean } = {},
): Promise<GcpKms> {
  const folder = await mkdtemp(join(tmpdir(), 'asterism-gcp-kms-'));
  let child: ChildProcess | undefined;
  let upstream = '';
  const onExit = () => child?.kill('SIGKILL');
  process.on('exit', onExit);
  const start = async () => {
    // It ends with this process even when that is killed.
    const args = ['--pdeathsig', 'KILL', program, `--state=${join(folder, 'keys.json')}`];
    child = spawn('setpriv', args, { cwd: folder, stdio: ['ignore', 'pipe', 'inherit'] });
    const [line] = await once(createInterface({ input: child.stdout! }), 'line', {
      signal: AbortSignal.timeout(START_TIMEOUT_MS),
    });
    upstream = `http://${(JSON.parse(line) as { address: string }).address}`;
  };
  const kill = async () => {
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, 'exit');
    child.kill('SIGKILL');
    await ended;
  };
  const call = async (method: string, path: string, body: unknown = {}): Promise<Record<string, unknown>> => {
    const answer = await fetch(`${upstream}/v1/${path}`, {
      method,
      body: JSON.stringify(body),
      signal: AbortSignal.timeout(START_TIMEOUT_MS),
    });
    const text = await answer.text();
    if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${text}`);
    return JSON.parse(text);
  };
  const keyPath = (keyName: string) => `${RING}/cryptoKeys/${keyName}`;
  await start();
  const front = await startGoogleFront({ upstream: () => upstream, scope: SCOPE, ...options });
  await call('POST', `${RING.replace(/\/keyRings.*$/, '')}/keyRings?keyRingId=ring`);
  return {
    front,
    parameters: (keyName) => ({
      projectID: 'project',
      location: 'europe-west3',
      keyRing: 'ring',
      keyName,
      endpoint: front.address,
    }),
    async createKey(keyName, purpose = 'ENCRYPT_DECRYPT') {
      await call('POST', `${RING}/cryptoKeys?cryptoKeyId=${keyName}`, { purpose });
    },
    async rotate(keyName) {
      const { name } = await call('POST', `${keyPath(keyName)}/cryptoKeyVersions`);
      const cryptoKeyVersionId = String(name).split('/').at(-1);
      await call('POST', `${keyPath(keyName)}:updatePrimaryVersion`, { cryptoKeyVersionId });
      return String(name);
    },
    async setState(keyName, version, state) {
      const path = `${keyPath(keyName)}/cryptoKeyVersions/${version}?updateMask=state`;
      await call('PATCH', path, { state });
    },
    async destroy(keyName, version) {
      await call('POST', `${keyPath(keyName)}/cryptoKeyVersions/${version}:destroy`);
    },
    kill,
    start,
    async [Symbol.asyncDispose]() {
      await front[Symbol.asyncDispose]();
      await kill();
      process.off('exit', onExit);
      await rm(folder, { recursive: true, force: true });
    },
  };
}
