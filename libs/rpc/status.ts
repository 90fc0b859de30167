import { randomUUID } from 'node:crypto';
import { printable } from '@asterism/bytes/printable';
import {
  AsterismError,
  BusyError,
  ParseError,
  PolicyError,
  UnreachableError,
  VerificationError,
} from '@asterism/errors/errors';
import { Metadata, type StatusObject, status } from '@grpc/grpc-js';

/** Names of gRPC's status codes. */
export type StatusName = keyof typeof status;

/** A failure with a gRPC status of its own: thrown by handlers to choose one, and by clients that got one. */
export class StatusError extends AsterismError {
  readonly status: StatusName;

  constructor(name: StatusName, code: string, message: string, options?: { cause?: unknown }) {
    super(code, message, options);
    this.status = name;
  }
}

/** What logs of this package need; pino's Logger fits. */
export interface RpcLog {
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
}

/** Trailer that carries an AsterismError's stable code. */
export const CODE_TRAILER = 'asterism-error';

const MAX_DETAILS = 2048;

/**
 * The one place where errors become statuses. Messages of AsterismErrors hold no secrets by rule and go to the
 * caller; of anything else the caller gets a reference only, and the log the rest.
 */
export function toStatus(error: unknown, method: string, log: RpcLog | undefined): Partial<StatusObject> {
  if (error instanceof AsterismError) {
    const metadata = new Metadata();
    metadata.set(CODE_TRAILER, error.code);
    return { code: status[nameOf(error)], details: error.message.slice(0, MAX_DETAILS), metadata };
  }
  const reference = randomUUID();
  log?.error({ err: error, method, reference }, 'unexpected error in an RPC handler');
  return { code: status.INTERNAL, details: `internal error, reference ${reference}` };
}

function nameOf(error: AsterismError): StatusName {
  if (error instanceof StatusError) return error.status;
  if (error instanceof ParseError) return 'INVALID_ARGUMENT';
  if (error instanceof VerificationError) return 'UNAUTHENTICATED';
  if (error instanceof PolicyError) return 'PERMISSION_DENIED';
  if (error instanceof UnreachableError) return 'UNAVAILABLE';
  if (error instanceof BusyError) return 'RESOURCE_EXHAUSTED';
  return 'FAILED_PRECONDITION';
}

/** The client's side: a status from grpc-js as an error of ours. `what` names method and server. */
export function fromStatus(error: unknown, what: string): AsterismError {
  if (error instanceof AsterismError) return error;
  const failure = error as Partial<StatusObject> & Error;
  // Its words are the peer's, whoever that is, and end in logs and on terminals; as a cause it is shown too.
  failure.message = printable(failure.message, MAX_DETAILS);
  if (failure.code === undefined)
    return new AsterismError('ERR_RPC', `${what}: ${failure.message}`, { cause: error });
  const details = printable(failure.details || 'no details', MAX_DETAILS);
  const [sent] = failure.metadata?.get(CODE_TRAILER) ?? [];
  const code = typeof sent === 'string' && /^ERR_[A-Z0-9_]{1,60}$/.test(sent) ? sent : undefined;
  switch (failure.code) {
    case status.UNAVAILABLE:
      return new UnreachableError(`${what}: ${details}`, { cause: error, ...(code && { code }) });
    case status.DEADLINE_EXCEEDED:
      return new UnreachableError(`${what} did not answer in time`, { cause: error, code: 'ERR_DEADLINE' });
    default: {
      // grpc-js calls it INTERNAL when a server that goes down ends a stream without a status: a broken connection.
      if (failure.code === status.INTERNAL && details.startsWith('Received RST_STREAM')) {
        return new UnreachableError(`${what}: the connection broke (${details})`, { cause: error });
      }
      const name = (status[failure.code] ?? 'UNKNOWN') as StatusName;
      return new StatusError(name, code ?? `ERR_RPC_${name}`, `${what}: ${details}`, { cause: error });
    }
  }
}
