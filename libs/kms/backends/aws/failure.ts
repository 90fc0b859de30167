import { AsterismError } from '@asterism/errors/errors';
import { KmsError, type KmsErrorCode, KmsUnavailableError } from '../../errors.ts';

type Service = 'KMS' | 'STORE';

/** What an error of the SDK says of itself. */
export interface AwsFailure {
  /** AWS's name of the error, e.g. AccessDeniedException; of network errors the code, e.g. ECONNREFUSED. */
  readonly name: string;
  /** HTTP status, where there was an answer. */
  readonly status: number | undefined;
  readonly requestId: string | undefined;
  readonly retryAfterMs: number | undefined;
}

interface Advice {
  readonly code: 'UNAVAILABLE' | 'THROTTLED' | KmsErrorCode;
  readonly advice: string;
}

const TRY_AGAIN = 'Try again later; where it lasts, check region, endpoint and the network';
const NEW_CREDENTIALS =
  'Give credentials that are valid now, or let the machine have some (environment, AWS files, web identity, instance role)';

const KINDS: readonly [names: RegExp, (service: Service) => Advice][] = [
  [
    /^(Throttl\w*|TooManyRequests\w*|RequestLimitExceeded|RequestThrottled\w*|LimitExceeded\w*|SlowDown|ProvisionedThroughputExceeded\w*|BandwidthLimitExceeded)$/,
    () => ({ code: 'THROTTLED', advice: 'Try again later, or ask AWS for a higher quota' }),
  ],
  [
    /^(CredentialsProviderError|TokenProviderError|ProviderError|Expired\w*|UnrecognizedClient\w*|InvalidSignature\w*|SignatureDoesNotMatch|IncompleteSignature\w*|Invalid(AccessKeyId|ClientTokenId|Token|SecurityToken|IdentityToken)\w*|MissingAuthenticationToken\w*|MissingSecurityHeader|RequestExpired|NotAuthorized\w*|AuthFailure)$/,
    (service) => ({ code: `ERR_${service}_CREDENTIALS`, advice: NEW_CREDENTIALS }),
  ],
  [
    /^(RequestTimeTooSkewed|RequestInTheFuture)$/,
    (service) => ({ code: `ERR_${service}_CREDENTIALS`, advice: 'Set the clock of this machine' }),
  ],
  [
    /^(AccessDenied\w*|AllAccessDisabled|AccountProblem|OptInRequired|SubscriptionRequired\w*)$/,
    (service) => ({
      code: `ERR_${service}_DENIED`,
      advice:
        service === 'KMS'
          ? 'Allow it to whoever asks, in the policy of the key or of the identity'
          : 'Allow it to whoever asks, in the policy of the bucket or of the identity (without s3:ListBucket an object that is missing looks the same)',
    }),
  ],
  [
    /^(NotFoundException|InvalidArnException)$/,
    () => ({
      code: 'ERR_KMS_KEY_NOT_FOUND',
      advice: 'Check keyName, the region and the account of the credentials',
    }),
  ],
  [
    /^(DisabledException|KMSInvalidStateException)$/,
    () => ({
      code: 'ERR_KMS_KEY_DISABLED',
      advice:
        'Enable the key; if it waits for its deletion, cancel that first (aws kms cancel-key-deletion, aws kms enable-key)',
    }),
  ],
  [
    /^(InvalidCiphertextException|IncorrectKeyException)$/,
    () => ({
      code: 'ERR_KMS_UNWRAP',
      advice: 'The wrapped bytes are damaged, of another key, or of another context',
    }),
  ],
  [
    /^NoSuchBucket$/,
    () => ({
      code: 'ERR_STORE_NOT_FOUND',
      advice:
        'Create the bucket first (aws s3api create-bucket), or correct its name: it is never made from here',
    }),
  ],
  [
    /^(PermanentRedirect|TemporaryRedirect|Redirect|AuthorizationHeaderMalformed|IllegalLocationConstraint\w*)$/,
    (service) => ({
      code: `ERR_${service}_SETTINGS`,
      advice: 'The bucket is in another region: correct region',
    }),
  ],
  [
    /^(Validation\w*|InvalidKeyUsageException|InvalidBucketName|UnsupportedOperation\w*)$/,
    (service) => ({
      code: `ERR_${service}_SETTINGS`,
      advice:
        service === 'KMS'
          ? 'The key must be a symmetric one (SYMMETRIC_DEFAULT) to encrypt and decrypt'
          : 'Check bucket and prefix',
    }),
  ],
  [
    /^(RequestTimeout\w*|TimeoutError|AbortError|KMSInternalException|KeyUnavailableException|DependencyTimeoutException|InternalError|InternalFailure|ServiceUnavailable\w*|OperationAborted|ConditionalRequestConflict|E(CONN|HOST|NET)[A-Z]+|EPIPE|ETIMEDOUT|EADDRNOTAVAIL|ENOTFOUND|EAI_[A-Z]+)$/,
    () => ({ code: 'UNAVAILABLE', advice: TRY_AGAIN }),
  ],
  [
    /^(UNABLE_TO_[A-Z_]+|CERT_[A-Z_]+|SELF_SIGNED_[A-Z_]+|DEPTH_ZERO_[A-Z_]+|ERR_TLS_[A-Z_]+|ERR_SSL_[A-Z0-9_]+|EPROTO)$/,
    (service) => ({
      code: `ERR_${service}_ANSWER`,
      advice:
        'The server cannot prove that it is the one that was named: check endpoint, and caCertificate where its authority is your own',
    }),
  ],
];

/**
 * What an error of the SDK says, in bounds. Its message is left out: AWS repeats signed headers in it, the session token
 * among them, when a signature does not match.
 */
export function awsFailure(error: unknown): AwsFailure {
  const { name, code, $metadata, $response } = fields(error);
  const { httpStatusCode, requestId } = fields($metadata);
  const seconds = matching(fields(fields($response).headers)['retry-after'], /^\d{1,4}$/);
  // Node's errors are named by their code; in errors of AWS that field is AWS's own.
  const said = /^(Error|AggregateError|TimeoutError)$/.test(matching(name, /^\w+$/) ?? '')
    ? (code ?? name)
    : name;
  return {
    name: matching(said, /^\w{1,64}$/) ?? 'an error without a name',
    status:
      Number.isInteger(httpStatusCode) && Number(httpStatusCode) > 0 ? Number(httpStatusCode) : undefined,
    requestId: matching(requestId, /^[A-Za-z0-9-]{8,36}$/),
    retryAfterMs: seconds === undefined ? undefined : Number(seconds) * 1000,
  };
}

function fields(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {};
}

function matching(value: unknown, pattern: RegExp): string | undefined {
  return typeof value === 'string' && pattern.test(value) ? value : undefined;
}

/** The error for whoever called, with nothing of the SDK's own but names and numbers. */
export function failure(service: Service, what: string, error: unknown): Error {
  if (error instanceof AsterismError) return error;
  const aws = awsFailure(error);
  const { code, advice } = judge(service, aws);
  const { name, status, requestId, retryAfterMs } = aws;
  const seen = [name, ...(status ? [`HTTP ${status}`] : []), ...(requestId ? [`request ${requestId}`] : [])];
  const message = `${what}: ${seen.join(', ')}. ${advice}`;
  if (code === 'UNAVAILABLE' || code === 'THROTTLED')
    return new KmsUnavailableError(`ERR_${service}_${code}`, message, {
      ...(retryAfterMs !== undefined && { retryAfterMs }),
    });
  return new KmsError(code, message);
}

function judge(service: Service, { name, status = 0 }: AwsFailure): Advice {
  const kind = KINDS.find(([names]) => names.test(name));
  if (kind !== undefined) return kind[1](service);
  if (status === 429) return { code: 'THROTTLED', advice: TRY_AGAIN };
  if (status >= 500) return { code: 'UNAVAILABLE', advice: TRY_AGAIN };
  return {
    code: `ERR_${service}_ANSWER`,
    advice:
      'That is no answer of AWS that is known: check endpoint, region and what is between here and there',
  };
}
