import { fromBase64, fromUtf8, toBase64, toUtf8 } from '@asterism/bytes/encoding';
import { AsterismError, ParseError } from '@asterism/errors/errors';
import { z } from 'zod';

/** The Secret of kube-system that says where the cluster's keys come from, and its one entry. */
export const KEY_CONFIGURATION = {
  name: 'asterism-kms',
  entry: 'configuration',
  type: 'asterism.dev/kms',
} as const;

/** The gauge by which a KeyService tells which version of the Secret it goes by. */
export const KEY_GENERATION_METRIC = 'asterism_key_generation';

const MAX_BYTES = 256 * 1024;
const uri = z.string().min(1).max(16_384);
const credentials = z.record(z.string().max(64), z.string().max(65_536));
const kmsCredentials = z.strictObject({ kms: credentials, storage: credentials });

const schema = z.strictObject({
  version: z.literal(1),
  homes: z
    .array(z.strictObject({ kmsUri: uri, storageUri: uri, credentials: kmsCredentials.optional() }))
    .min(1)
    .max(2),
});

/** Credentials of a KMS and of its store, by the names of the catalogue. Secret. */
export type HomeCredentials = z.infer<typeof kmsCredentials>;

/** A key home as it is written down. Secret: it may hold credentials, or the master secret itself. */
export interface HomeConfiguration {
  readonly kmsUri: string;
  readonly storageUri: string;
  readonly credentials?: HomeCredentials;
}

/** One key home; two while the key encryption key is rotated, the older one first. */
export interface KeyConfiguration {
  readonly homes: readonly HomeConfiguration[];
}

/** @throws ParseError (ERR_KEY_CONFIGURATION); messages never hold what was read */
export function parseKeyConfiguration(text: string): KeyConfiguration {
  const value = parse(text, 'the key configuration');
  const parsed = schema.safeParse(value);
  if (!parsed.success) throw malformed('the key configuration', parsed.error);
  return {
    homes: parsed.data.homes.map(({ credentials: given, ...uris }) => ({
      ...uris,
      ...(given && { credentials: given }),
    })),
  };
}

export function renderKeyConfiguration({ homes }: KeyConfiguration): string {
  return JSON.stringify(schema.parse({ version: 1, homes }));
}

/** Data of the Secret {@link KEY_CONFIGURATION}. */
export function keySecretData(configuration: KeyConfiguration): Record<string, string> {
  return { [KEY_CONFIGURATION.entry]: toBase64(toUtf8(renderKeyConfiguration(configuration))) };
}

/**
 * What the data of that Secret say.
 * @throws AsterismError (ERR_KEY_CONFIGURATION); messages never hold what was read
 */
export function keyConfigurationIn(data: Readonly<Record<string, string>> | undefined): KeyConfiguration {
  const content = data?.[KEY_CONFIGURATION.entry];
  if (content === undefined)
    throw new AsterismError(
      'ERR_KEY_CONFIGURATION',
      `the Secret ${KEY_CONFIGURATION.name} holds no configuration`,
    );
  return parseKeyConfiguration(fromUtf8(fromBase64(content)));
}

/** Credentials as they travel in init and recovery requests. @throws ParseError (ERR_KEY_CONFIGURATION) */
export function parseHomeCredentials(text: string): HomeCredentials {
  const parsed = kmsCredentials.safeParse(parse(text, 'kms_credentials'));
  if (!parsed.success) throw malformed('kms_credentials', parsed.error);
  return parsed.data;
}

export function renderHomeCredentials(given: HomeCredentials): string {
  return JSON.stringify(kmsCredentials.parse(given));
}

function parse(text: string, what: string): unknown {
  if (text.length > MAX_BYTES)
    throw new ParseError(`${what} has more than ${MAX_BYTES} bytes`, { code: 'ERR_KEY_CONFIGURATION' });
  try {
    return JSON.parse(text);
  } catch {
    // The parser's own message quotes the text.
    throw new ParseError(`${what} is not JSON`, { code: 'ERR_KEY_CONFIGURATION' });
  }
}

function malformed(what: string, error: z.ZodError): ParseError {
  const [issue] = error.issues;
  const where = issue?.path.map(String).join('.').slice(0, 100) ?? '';
  return new ParseError(`${what} is malformed at "${where}"`, { code: 'ERR_KEY_CONFIGURATION' });
}
