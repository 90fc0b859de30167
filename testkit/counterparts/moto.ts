import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, open, readFile, rm, writeFile } from 'node:fs/promises';
import { request as plainRequest } from 'node:http';
import { request as tlsRequest } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { boundedText } from '@asterism/runtime/bounded-text';
import { freePort } from '../free-port.ts';
import { testCa } from '../test-ca.ts';
import { installed } from './installed.ts';

/** moto and what it needs for KMS, S3 and IAM, made by `pip-compile --generate-hashes`. */
const REQUIREMENTS = join(import.meta.dirname, 'moto-requirements.txt');
const SERVER = join(import.meta.dirname, 'moto-server.py');
const INSTALL_TIMEOUT_MS = 10 * 60_000;
const START_TIMEOUT_MS = 60_000;
const REGION = 'eu-central-1';

/**
 * An emulator of AWS on this machine. It honours conditions of S3 and the encryption context, and judges signatures and
 * IAM policies (without their Resource and Condition) once {@link Moto.judgeCallers} was called. It does not refuse to
 * use keys that are disabled, does not know about expired credentials, and never is busy.
 */
export interface Moto extends AsyncDisposable {
  readonly endpoint: string;
  /** PEM of the authority of its certificate, where it was started with TLS. */
  readonly ca: string;
  readonly region: string;
  /** A call of the KMS API as administrator, e.g. `DisableKey`. */
  kms(action: string, parameters: object, region?: string): Promise<Record<string, unknown>>;
  /** @returns ARN of a new symmetric key */
  createKey(alias?: string): Promise<string>;
  createBucket(name: string): Promise<void>;
  /** Writes an object as somebody else, past every condition. */
  putObject(bucket: string, key: string, content: string | Uint8Array): Promise<void>;
  /** Access keys of a new user that has this IAM policy. */
  createUser(policy: string): Promise<{ accessKeyID: string; accessKey: string }>;
  /** From now on signatures and policies count; the calls above do not work any more until it is `false` again. */
  judgeCallers(judge: boolean): Promise<void>;
  /** It takes connections and answers nothing: what it has is in its memory, so it cannot be started again. */
  suspend(): void;
  /** After {@link suspend}: it answers again. */
  resume(): void;
}

/**
 * The interpreter that has moto, installed on first use.
 * @returns the reason to skip where the registry cannot be reached; under continuous integration that is an error
 */
export async function motoPython(): Promise<{ program: string } | { skip: string }> {
  return installed({
    name: 'moto',
    digest: createHash('sha256')
      .update(await readFile(REQUIREMENTS))
      .digest('hex'),
    program: 'bin/python',
    timeoutMs: INSTALL_TIMEOUT_MS,
    async fill(work, run) {
      const venv = join(work, 'venv');
      await run('python3', '-m', 'venv', venv);
      const pip = ['-m', 'pip', 'install', '--quiet', '--no-deps', '--require-hashes', '--only-binary=:all:'];
      // Its interpreter finds its packages by its own place, so it may move; scripts beside it may not, and are not used.
      await run(join(venv, 'bin/python'), ...pip, `--requirement=${REQUIREMENTS}`);
      return venv;
    },
  });
}

/** @throws Error with the end of its log when it does not come up */
export async function startMoto(program: string, { tls = false, host = '127.0.0.1' } = {}): Promise<Moto> {
  const folder = await mkdtemp(join(tmpdir(), 'asterism-moto-'));
  const port = await freePort();
  const authority = tls ? await testCa() : undefined;
  const args = [SERVER, host, String(port)];
  if (authority !== undefined) {
    const own = await authority.issue({ name: 'localhost', usage: 'server', addresses: [host] });
    await writeFile(join(folder, 'server.crt'), own.certificate);
    await writeFile(join(folder, 'server.key'), own.key, { mode: 0o600 });
    args.push(join(folder, 'server.crt'), join(folder, 'server.key'));
  }
  const log = await open(join(folder, 'moto.log'), 'a');
  // It ends with this process even when that is killed.
  const child = spawn('setpriv', ['--pdeathsig', 'KILL', program, ...args], {
    cwd: folder,
    stdio: ['ignore', log.fd, log.fd],
    env: { PATH: process.env.PATH ?? '', HOME: folder, MOTO_PORT: String(port) },
  });
  await log.close();
  const onExit = () => child.kill('SIGKILL');
  process.on('exit', onExit);
  const dispose = async () => {
    process.off('exit', onExit);
    if (child.exitCode === null && child.signalCode === null) {
      const ended = once(child, 'exit');
      child.kill('SIGKILL');
      await ended;
    }
    await rm(folder, { recursive: true, force: true });
  };

  const call = async (service: string, options: CallOptions): Promise<string> => {
    const { status, text } = await exchange({ host, port, ca: authority?.pem, service, ...options });
    if (status >= 300)
      throw new Error(`moto: ${service} ${options.path ?? ''}: ${status} ${text.slice(0, 500)}`);
    return text;
  };
  const limit = performance.now() + START_TIMEOUT_MS;
  while (
    !(await call('moto', { method: 'GET', path: '/moto-api/' }).then(
      () => true,
      () => false,
    ))
  ) {
    if (performance.now() > limit || child.exitCode !== null) {
      const text = await readFile(join(folder, 'moto.log'), 'utf8').catch(() => '');
      await dispose();
      throw new Error(`moto does not come up:\n${text.slice(-2000)}`);
    }
    await delay(100);
  }

  const kms: Moto['kms'] = async (action, parameters, region = REGION) =>
    JSON.parse(
      (await call('kms', {
        region,
        headers: { 'x-amz-target': `TrentService.${action}`, 'content-type': 'application/x-amz-json-1.1' },
        body: JSON.stringify(parameters),
      })) || '{}',
    );
  const iam = (action: string, parameters: Record<string, string>) =>
    call('iam', {
      region: 'us-east-1',
      headers: { 'content-type': 'application/x-www-form-urlencoded' },
      body: new URLSearchParams({ Action: action, Version: '2010-05-08', ...parameters }).toString(),
    });
  let users = 0;
  return {
    endpoint: `${tls ? 'https' : 'http'}://${host}:${port}`,
    ca: authority?.pem ?? '',
    region: REGION,
    kms,
    async createKey(alias) {
      const { KeyMetadata } = await kms('CreateKey', {
        KeyUsage: 'ENCRYPT_DECRYPT',
        KeySpec: 'SYMMETRIC_DEFAULT',
      });
      const { Arn, KeyId } = KeyMetadata as { Arn: string; KeyId: string };
      if (alias !== undefined) await kms('CreateAlias', { AliasName: alias, TargetKeyId: KeyId });
      return Arn;
    },
    async createBucket(name) {
      const body = `<CreateBucketConfiguration><LocationConstraint>${REGION}</LocationConstraint></CreateBucketConfiguration>`;
      await call('s3', { method: 'PUT', path: `/${name}`, body });
    },
    async putObject(bucket, key, content) {
      await call('s3', { method: 'PUT', path: `/${bucket}/${key}`, body: content });
    },
    async createUser(policy) {
      const UserName = `user-${users++}`;
      await iam('CreateUser', { UserName });
      await iam('PutUserPolicy', { UserName, PolicyName: 'rules', PolicyDocument: policy });
      const made = await iam('CreateAccessKey', { UserName });
      const value = (tag: string) => new RegExp(`<${tag}>([^<]+)</${tag}>`).exec(made)?.[1] ?? '';
      return { accessKeyID: value('AccessKeyId'), accessKey: value('SecretAccessKey') };
    },
    async judgeCallers(judge) {
      await call('moto', { path: '/moto-api/reset-auth', body: judge ? '0' : 'inf' });
    },
    suspend: () => void child.kill('SIGSTOP'),
    resume: () => void child.kill('SIGCONT'),
    [Symbol.asyncDispose]: dispose,
  };
}

interface CallOptions {
  readonly method?: string;
  readonly path?: string;
  readonly region?: string;
  readonly headers?: Record<string, string>;
  readonly body?: string | Uint8Array;
}

function exchange(
  options: CallOptions & { host: string; port: number; ca: string | undefined; service: string },
): Promise<{ status: number; text: string }> {
  const { host, port, ca, service, method = 'POST', path = '/', region = REGION, headers, body } = options;
  const scope = `administrator/20250101/${region}/${service}/aws4_request`;
  return new Promise((resolve, reject) => {
    const outgoing = (ca === undefined ? plainRequest : tlsRequest)(
      {
        host,
        port,
        ca,
        method,
        path,
        agent: false,
        signal: AbortSignal.timeout(20_000),
        headers: {
          authorization: `AWS4-HMAC-SHA256 Credential=${scope}, SignedHeaders=host, Signature=none`,
          ...headers,
        },
      },
      (response) => {
        boundedText(response, 1 << 20)
          .then((text) => resolve({ status: response.statusCode ?? 0, text }))
          .catch(reject);
      },
    );
    outgoing.on('error', reject);
    outgoing.end(body);
  });
}
