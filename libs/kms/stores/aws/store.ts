import { randomInt } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { call, connectionOptions, guardHttp, INNERMOST } from '../../backends/aws/connection.ts';
import { awsFailure } from '../../backends/aws/failure.ts';
import { checkObject } from '../../checks.ts';
import { KmsError } from '../../errors.ts';
import type { Settings } from '../../settings.ts';
import { type DekStore, MAX_OBJECT_BYTES, OBJECT_NAME } from '../../store.ts';

const PAGE = 500;
/** A page: names of 1,024 bytes at most, each byte as three characters, and 512 bytes around each. */
const MAX_ANSWER_BYTES = PAGE * (3 * 1024 + 512);
/** Writers at the same time get 409 until one of them is done. */
const CONFLICT_TRIES = 6;
const CONFLICT_WAIT_MS = 100;

/**
 * Objects of a bucket of S3, named by prefix and DEK id; with no prefix as Constellation v2.6 named them. The bucket is
 * not made here: a typo must not become a bucket.
 *
 * @throws KmsError ERR_STORE_SETTINGS
 */
export async function open(settings: Settings): Promise<DekStore> {
  const { bucket, region, prefix = '' } = settings.parameters;
  const options = connectionOptions(settings, 'STORE');
  const { S3Client, GetObjectCommand, PutObjectCommand, DeleteObjectCommand, ListObjectsV2Command } =
    await import('@aws-sdk/client-s3');
  // Servers other than AWS's have no name for each bucket.
  const client = new S3Client({ ...options, forcePathStyle: options.endpoint !== undefined });
  client.middlewareStack.add(guardHttp('STORE', options, MAX_ANSWER_BYTES), INNERMOST);
  const what = (action: string) => `AWS S3: s3:${action} in bucket ${bucket} (${region})`;
  const target = (name: string) => ({ Bucket: bucket, Key: `${prefix}${name}` });
  let provenConditions = false;

  /** @returns whether it was written; false where the condition did not hold */
  async function put(
    name: string,
    bytes: Uint8Array,
    condition: { IfNoneMatch: '*' } | { IfMatch: string },
    signal?: AbortSignal,
  ): Promise<boolean> {
    return await call('STORE', what('PutObject'), signal, (abortSignal) =>
      whileConflicting(abortSignal, async () => {
        const command = new PutObjectCommand({
          ...target(name),
          ...condition,
          Body: bytes,
          ContentType: 'application/json',
        });
        try {
          await client.send(command, { abortSignal });
          return true;
        } catch (error) {
          const { name: code } = awsFailure(error);
          if (code === 'PreconditionFailed' || ('IfMatch' in condition && code === 'NoSuchKey')) return false;
          throw error;
        }
      }),
    );
  }

  const store: DekStore = {
    async get(name, signal) {
      checkObject(name);
      return await call('STORE', what('GetObject'), signal, async (abortSignal) => {
        try {
          const { Body, ETag } = await client.send(new GetObjectCommand(target(name)), { abortSignal });
          if (Body === undefined || ETag === undefined || !/^[\x21-\x7e]{1,256}$/.test(ETag))
            throw new KmsError('ERR_STORE_ANSWER', `${what('GetObject')}: an object without body or ETag`);
          return { bytes: await bounded(Body as AsyncIterable<Uint8Array>, name), version: ETag };
        } catch (error) {
          // No other 404: a proxy's page must not pass for a key that was never made.
          if (awsFailure(error).name === 'NoSuchKey') return undefined;
          throw error;
        }
      });
    },

    // Where the answer to a write was lost, the SDK's second try finds it there: `exists` and `changed` may be ours.
    async create(name, bytes, signal) {
      checkObject(name, bytes);
      const condition = { IfNoneMatch: '*' } as const;
      if (!(await put(name, bytes, condition, signal))) return 'exists';
      // A server that overlooks conditions would let a second writer put another key in the place of the first. Writing
      // the same again changes nothing and shows it.
      if (!provenConditions && (await put(name, bytes, condition, signal)))
        throw new KmsError(
          'ERR_STORE_ANSWER',
          `${what('PutObject')}: the server ignores If-None-Match, so keys could be written over. Use one with conditional writes`,
        );
      provenConditions = true;
      return 'created';
    },

    async replace(name, bytes, version, signal) {
      checkObject(name, bytes);
      return (await put(name, bytes, { IfMatch: version }, signal)) ? 'replaced' : 'changed';
    },

    async *list(signal) {
      let token: string | undefined;
      let last = '';
      do {
        const command = new ListObjectsV2Command({
          Bucket: bucket,
          Prefix: prefix,
          MaxKeys: PAGE,
          // Names of others may hold what XML cannot.
          EncodingType: 'url',
          ContinuationToken: token,
        });
        const page = await call('STORE', what('ListBucket'), signal, (abortSignal) =>
          client.send(command, { abortSignal }),
        );
        for (const { Key } of page.Contents ?? []) {
          const name = ownName(Key, prefix);
          if (name === undefined) continue;
          // In ascending order, as S3 lists them: a list that goes round in circles ends here.
          if (name <= last)
            throw new KmsError('ERR_STORE_ANSWER', `${what('ListBucket')}: the list is not in order`);
          last = name;
          yield name;
        }
        const next = page.IsTruncated ? page.NextContinuationToken : undefined;
        if (page.IsTruncated && (next === undefined || next === token))
          throw new KmsError('ERR_STORE_ANSWER', `${what('ListBucket')}: the list does not go on`);
        token = next;
      } while (token !== undefined);
    },

    async remove(name, version, signal) {
      // Read first: what S3 answers to a conditional delete of nothing differs, and servers may overlook the condition.
      const there = await store.get(name, signal);
      if (there === undefined) return 'removed';
      if (there.version !== version) return 'changed';
      return await call('STORE', what('DeleteObject'), signal, (abortSignal) =>
        whileConflicting(abortSignal, async () => {
          try {
            await client.send(new DeleteObjectCommand({ ...target(name), IfMatch: version }), {
              abortSignal,
            });
            return 'removed';
          } catch (error) {
            const { name: code } = awsFailure(error);
            if (code === 'NoSuchKey') return 'removed';
            if (code === 'PreconditionFailed') return 'changed';
            throw error;
          }
        }),
      );
    },

    async close() {
      client.destroy();
    },
  };
  return store;
}

/** Tries again what S3 answers 409 to: others write the same object at that moment. */
async function whileConflicting<T>(signal: AbortSignal, work: () => Promise<T>): Promise<T> {
  for (let tried = 1; ; tried++) {
    try {
      return await work();
    } catch (error) {
      const conflict = /^(ConditionalRequestConflict|OperationAborted)$/.test(awsFailure(error).name);
      if (!conflict || tried >= CONFLICT_TRIES) throw error;
      await delay(randomInt(CONFLICT_WAIT_MS, CONFLICT_WAIT_MS * 2 ** tried), undefined, { signal });
    }
  }
}

async function bounded(body: AsyncIterable<Uint8Array>, name: string): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  let length = 0;
  for await (const chunk of body) {
    length += chunk.length;
    if (length > MAX_OBJECT_BYTES)
      throw new KmsError(
        'ERR_STORE_ANSWER',
        `the object ${name} has more than ${MAX_OBJECT_BYTES} bytes: it holds no key`,
      );
    chunks.push(chunk);
  }
  return Uint8Array.from(Buffer.concat(chunks));
}

function ownName(encoded: string | undefined, prefix: string): string | undefined {
  let key: string;
  try {
    key = decodeURIComponent(encoded ?? '');
  } catch {
    return undefined;
  }
  const name = key.slice(prefix.length);
  return key.startsWith(prefix) && OBJECT_NAME.test(name) ? name : undefined;
}
