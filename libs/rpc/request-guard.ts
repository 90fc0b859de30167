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
/** Pieces that a small request may come in; more of them for larger ones: a TCP segment holds several hundred bytes. */
const MIN_PIECES = 16;
const BYTES_PER_PIECE = 256;

/** What grpc-js's innermost call has, beyond its interface. */
interface InnerCall {
  readonly stream: ServerHttp2Stream;
  readonly metadata: Metadata;
}

/**
 * Ends calls whose request is not complete in time or comes in crumbs (each piece that waits costs some hundred bytes
 * more than it holds), and calls whose answer is not taken.
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
    let pieces = 0;
    stream.on('data', () => {
      if (++pieces > maxPieces) stream.close(constants.NGHTTP2_ENHANCE_YOUR_CALM);
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
