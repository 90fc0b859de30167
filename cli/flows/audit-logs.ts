import { createWriteStream } from 'node:fs';
import { mkdtemp, open, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { PassThrough, Transform } from 'node:stream';
import { finished, pipeline } from 'node:stream/promises';
import { AsterismError, UnreachableError } from '@asterism/errors/errors';
import type { KubernetesObject } from '@asterism/kubernetes/api';
import { verifyAuditLog } from '@asterism/runtime/audit-log';
import { messageOf } from '../output.ts';
import type { AdminApi } from './admin-api.ts';

const PODS = '/api/v1/namespaces/kube-system/pods?labelSelector=app%3Dkey-service';
const FOLDER = '/run/state/asterism/audit';
const NAME = /^[a-z0-9][a-z0-9.-]{0,63}\.log$/;
const MAX_BYTES = 1 << 30;
const TIMEOUT_MS = 300_000;

/** Of one node. */
const MAX_LOGS = 32;
const MAX_NAMES_BYTES = 16 * 1024;

/** One line of an audit log. What it says of itself is its node's word. */
export interface AuditLine {
  /** The node whose log it is of; empty for a file. A field `node` is the node that a line is about. */
  readonly writtenBy: string;
  readonly log: string;
  readonly seq: number;
  readonly time: string;
  readonly event: string;
  readonly outcome: string;
  readonly [field: string]: unknown;
}

/** A log whose chain was checked from its first line on. */
export interface CheckedLog {
  readonly node: string;
  readonly log: string;
  readonly lines: number;
  /** SHA-256 of the last line: who keeps it notices later if lines are cut off at the end. */
  readonly head: string;
  /** What is wrong with the chain; nothing of such a log is to be believed. */
  readonly error?: string;
}

export interface AuditQuery {
  readonly kubeconfig: string;
  readonly api: AdminApi;
  readonly signal: AbortSignal;
  /** Keeps copies of the logs there. */
  readonly keep?: string;
  readonly onStep: (text: string) => void;
  readonly onLine: (line: AuditLine) => void;
}

interface PodList extends KubernetesObject {
  readonly items?: readonly {
    readonly metadata?: { readonly name?: string };
    readonly spec?: { readonly nodeName?: string };
    readonly status?: { readonly phase?: string };
  }[];
}

/**
 * Fetches the audit logs of every control plane, checks their chains, and gives out the lines of those that are whole.
 * They are read in the KeyService's pod, which has their folder.
 */
export async function readClusterAudit(query: AuditQuery): Promise<CheckedLog[]> {
  const { items = [] } = await query.api.call<PodList>('GET', PODS, undefined, query.signal);
  const pods = items.filter(({ status }) => status?.phase === 'Running');
  if (pods.length === 0)
    throw new UnreachableError(
      'no KeyService runs, in whose pods the audit logs are read; see: asterism status',
    );
  const folder = query.keep ?? (await mkdtemp(join(tmpdir(), 'asterism-audit-')));
  try {
    const checked: CheckedLog[] = [];
    for (const { metadata, spec } of pods) {
      const node = spec?.nodeName ?? '';
      if (!/^[a-z0-9.-]{1,253}$/.test(node)) continue;
      query.onStep(`the logs of ${node}`);
      for (const log of await namesIn(query, metadata?.name ?? '')) {
        const path = join(folder, `${node}-${log}`);
        await fetchLog(query, metadata?.name ?? '', log, path);
        checked.push(await checkAuditFile(path, node, log, query.onLine));
      }
    }
    return checked;
  } finally {
    if (query.keep === undefined) await rm(folder, { recursive: true, force: true });
  }
}

/** Checks the chain of a file, and gives out its lines if it is whole. */
export async function checkAuditFile(
  path: string,
  node: string,
  log: string,
  onLine: (line: AuditLine) => void,
): Promise<CheckedLog> {
  let chain: Awaited<ReturnType<typeof verifyAuditLog>>;
  try {
    chain = await verifyAuditLog(path);
  } catch (error) {
    if (!(error instanceof AsterismError))
      throw new AsterismError('ERR_READ', `${path} cannot be read: ${messageOf(error)}`, { cause: error });
    return { node, log, lines: 0, head: '', error: error.message };
  }
  await using file = await open(path, 'r');
  let count = 0;
  for await (const text of createInterface({ input: file.createReadStream({ autoClose: false }) })) {
    // What a node writes while it is read has no end yet.
    if (count++ >= chain.lines) break;
    onLine({ ...(JSON.parse(text) as object), writtenBy: node, log } as AuditLine);
  }
  return { node, log, lines: chain.lines, head: chain.hash };
}

async function namesIn(query: AuditQuery, pod: string): Promise<string[]> {
  const chunks: Buffer[] = [];
  const out = bounded(`the list of logs in ${pod}`, MAX_NAMES_BYTES);
  out.on('data', (chunk: Buffer) => chunks.push(chunk));
  await Promise.all([
    inPod(query, pod, `console.log(fs.readdirSync('${FOLDER}').join('\\n'))`, out),
    finished(out),
  ]);
  const names = Buffer.concat(chunks).toString().split('\n');
  return names.filter((name) => NAME.test(name)).slice(0, MAX_LOGS);
}

async function fetchLog(query: AuditQuery, pod: string, log: string, path: string): Promise<void> {
  const out = bounded(log, MAX_BYTES);
  const written = pipeline(out, createWriteStream(path, { mode: 0o600 }));
  await Promise.all([
    inPod(query, pod, `fs.createReadStream('${FOLDER}/${log}').pipe(process.stdout)`, out),
    written,
  ]);
}

/** What a node sends ends with an error where it is more than that. */
function bounded(what: string, maxBytes: number): Transform {
  let size = 0;
  return new Transform({
    transform(chunk: Buffer, _encoding, done) {
      size += chunk.length;
      if (size > maxBytes)
        done(new AsterismError('ERR_AUDIT_LOG', `${what} is larger than ${maxBytes} bytes`));
      else done(null, chunk);
    },
  });
}

/** Runs a line of JavaScript in a KeyService's container, which has no other programs than Node. */
async function inPod(
  { kubeconfig, signal }: AuditQuery,
  pod: string,
  script: string,
  out: Transform,
): Promise<void> {
  const { Exec, KubeConfig } = await import('@kubernetes/client-node');
  const config = new KubeConfig();
  config.loadFromString(kubeconfig);
  const until = AbortSignal.any([signal, AbortSignal.timeout(TIMEOUT_MS)]);
  const command = ['/app/node', '--eval', script];
  const said: Buffer[] = [];
  const errors = new PassThrough();
  errors.on('data', (chunk: Buffer) => said.length < 16 && said.push(chunk));
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const fail = (why: string) =>
    reject(new UnreachableError(`the audit logs in the pod ${pod} cannot be read: ${why.slice(0, 500)}`));
  // It may end before there is a connection.
  promise.catch(() => {});
  const connecting = new Exec(config).exec(
    'kube-system',
    pod,
    'key-service',
    command,
    out,
    errors,
    null,
    false,
    ({ status, message }) =>
      status === 'Success' ? resolve() : fail(`${message ?? ''} ${Buffer.concat(said)}`),
  );
  connecting.then(
    (socket) => {
      socket.on('close', () => fail('the connection ended'));
      socket.on('error', (error: Error) => fail(error.message));
    },
    (error) => fail(messageOf(error)),
  );
  const abort = () => fail(String(until.reason));
  until.addEventListener('abort', abort, { once: true });
  out.once('error', reject);
  try {
    await promise;
  } finally {
    until.removeEventListener('abort', abort);
    // Also one that is made too late.
    connecting.then(
      (socket) => socket.close(),
      () => {},
    );
    out.end();
  }
}
