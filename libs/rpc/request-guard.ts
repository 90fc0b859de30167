import { constants, type ServerHttp2Stream } from 'node:http2';
import {
  type Metadata,
  ResponderBuilder,
  ServerInterceptingCall,
  type ServerInterceptor,
  status,
} from '@grpc/grpc-js';

// Beside atls-credentials.ts the one file that knows grpc-js from within. It buffers a request for as long as its caller
// likes, and a call that was answered stays open until the caller ends it. Both can be helped only by whoever has the
// HTTP/2 stream of the call. hostile-caller.test.ts fails when a version of grpc-js keeps that elsewhere.

export interface GuardLimits {
  /** Milliseconds for a request to come, and for its answer to be taken. */
  readonly requestTimeoutMs: number;
  readonly maxRequestBytes: number;
}

/** Milliseconds between telling a caller that its time is up and cutting the call off. */
const LAST_WORD_MS = 1000;
/** Names and values of all headers. HTTP/2's own limit binds only callers that acknowledge it. */
const MAX_HEADER_BYTES = 16 * 1024;
/** gRPC over HTTP/2, "Length-Prefixed-Message": a flag and four bytes. */
const PREFIX_BYTES = 5;
/** Pieces that a small request may come in; more of them for larger ones: a TCP segment holds several hundred bytes. */
const MIN_PIECES = 16;
const BYTES_PER_PIECE = 256;

/** What grpc-js's innermost call has, beyond its interface. */
interface InnerCall {
  readonly stream: ServerHttp2Stream;
  readonly metadata: Metadata;
}

/**
 * Ends calls whose request is not complete in time, comes in crumbs (each piece that waits costs some hundred bytes more
 * than it holds) or is followed by another (no method of ours takes two, and grpc-js queues them all: an empty one has
 * five bytes), and calls whose answer is not taken.
 */
export function requestGuard({ requestTimeoutMs, maxRequestBytes }: GuardLimits): ServerInterceptor {
  const maxPieces = MIN_PIECES + Math.ceil(maxRequestBytes / BYTES_PER_PIECE);
  return (method, call) => {
    const { stream, metadata } = call as unknown as InnerCall;
    if (sizeOf(metadata) > MAX_HEADER_BYTES) stream.close(constants.NGHTTP2_ENHANCE_YOUR_CALM);
    const cut = (): void => stream.close(constants.NGHTTP2_CANCEL);
    const late = (): void => {
      const details = `the request was not complete within ${requestTimeoutMs} ms`;
      call.sendStatus({ code: status.DEADLINE_EXCEEDED, details });
      timer = setTimeout(cut, LAST_WORD_MS);
    };
    let timer = setTimeout(late, requestTimeoutMs);
    const prefix = Buffer.alloc(PREFIX_BYTES);
    let received = 0;
    let pieces = 0;
    // Before grpc-js sees the piece: it looks at nothing more of a call whose stream is closed.
    stream.prependListener('data', (piece: Buffer) => {
      if (received < PREFIX_BYTES) piece.copy(prefix, received);
      received += piece.length;
      const whole = received < PREFIX_BYTES ? PREFIX_BYTES : PREFIX_BYTES + prefix.readUInt32BE(1);
      if (received > whole || ++pieces > maxPieces) stream.close(constants.NGHTTP2_ENHANCE_YOUR_CALM);
    });
    stream.once('end', () => clearTimeout(timer));
    stream.once('close', () => clearTimeout(timer));
    const answered = (): void => {
      clearTimeout(timer);
      if (!stream.closed) timer = setTimeout(cut, requestTimeoutMs);
    };
    const responder = new ResponderBuilder()
      .withSendMessage((message, next) => {
        // Of a stream the handler waits until each message is taken; the only answer of a unary call waits for itself.
        if (!method.responseStream) answered();
        next(message);
      })
      .withSendStatus((end, next) => {
        answered();
        next(end);
      });
    return new ServerInterceptingCall(call, responder.build());
  };
}

function sizeOf(metadata: Metadata): number {
  let size = 0;
  for (const [name, values] of Object.entries(metadata.toHttp2Headers())) {
    for (const value of [values].flat()) size += name.length + String(value).length;
  }
  return size;
}
