import { type KeyObject, sign } from 'node:crypto';
import { concat, equal, zero } from '@asterism/bytes/bytes';
import { AsterismError, ParseError, UnreachableError } from '@asterism/errors/errors';
import {
  type CertificateRequest,
  certificateMessage,
  certificateVerifyInput,
  certificateVerifyMessage,
  EMPTY_CERTIFICATE,
  finishedMessage,
  parseCertificateMessage,
  parseCertificateRequest,
  parseServerHello,
} from './messages.ts';
import { finishedData, RecordProtection, type Suite, suiteOf } from './record-protection.ts';
import { MESSAGE, MessageReader, RECORD, RecordReader, type TlsRecord } from './records.ts';
import { Transcript } from './transcript.ts';

/** What the server showed before anything of it reached OpenSSL. */
export interface ServerFlight {
  /** DER of the server's certificate. Its possession of the key is OpenSSL's to verify, afterwards. */
  readonly certificate: Uint8Array;
  /** Undefined where the server asks for no certificate. */
  readonly request: CertificateRequest | undefined;
}

/** What this side answers to a request. */
export interface ClientAuthentication {
  /** DER. */
  readonly certificate: Uint8Array;
  /** P-256. */
  readonly privateKey: KeyObject;
}

export interface GateEvents {
  /** Bytes for OpenSSL. */
  toClient(bytes: Uint8Array): void;
  /** Bytes for the network. */
  toServer(bytes: Uint8Array): void;
  /** Judges the server and makes the own certificate where one is asked for. Throwing ends the connection. */
  judge(flight: ServerFlight): Promise<ClientAuthentication | undefined>;
  /** The server's bytes have come to their end. */
  ended(): void;
  failed(error: Error): void;
  /** The own flight is out, or none was wanted. From now on all bytes pass untouched. */
  opened(): void;
}

type State = 'hello' | 'server-flight' | 'judging' | 'client-flight' | 'open' | 'failed';

/** Largest amount of the server's bytes that is held. */
const MAX_HELD = 1024 * 1024;

/**
 * Stands between OpenSSL (the TLS client) and the network while a TLS 1.3 handshake runs, and replaces the client's
 * authentication flight: Node can neither show the acceptable CAs of a server nor take a client certificate once
 * the handshake runs.
 *
 * 1. ClientHello and ServerHello pass. The server's protected flight is held and read.
 * 2. The server's certificate is judged; the own certificate is made. Then the flight goes to OpenSSL, which
 *    verifies CertificateVerify and Finished.
 * 3. OpenSSL answers with an empty Certificate and Finished. They are dropped; the own Certificate, CertificateVerify
 *    and Finished go out under the same handshake keys.
 *
 * The application keys of TLS 1.3 come from the transcript up to the server's Finished (RFC 8446 7.1), which both
 * sides share, so all that follows is OpenSSL's and passes.
 */
export class HandshakeGate {
  readonly #events: GateEvents;
  readonly #fromServer = new RecordReader();
  readonly #fromClient = new RecordReader();
  readonly #serverMessages = new MessageReader();
  readonly #clientMessages = new MessageReader();
  readonly #transcript = new Transcript();
  #state: State = 'hello';
  #suite: Suite | undefined;
  #retried = false;
  /** Records of the server's flight (and what follows), not yet given to OpenSSL. */
  #held: Uint8Array[] = [];
  #heldLength = 0;
  #opener: RecordProtection | undefined;
  #clientSecret: Uint8Array | undefined;
  #clientProtection: RecordProtection | undefined;
  #request: CertificateRequest | undefined;
  #certificate: Uint8Array | undefined;
  #expected: readonly number[] = [MESSAGE.encryptedExtensions];
  #authentication: ClientAuthentication | undefined;

  constructor(events: GateEvents) {
    this.#events = events;
  }

  /** Whether bytes pass untouched. */
  get open(): boolean {
    return this.#state === 'open';
  }

  /** Takes bytes from the network. */
  receive(bytes: Uint8Array): void {
    this.#guard(() => {
      if (this.#state === 'open' || this.#state === 'client-flight') {
        this.#events.toClient(bytes);
        return;
      }
      this.#fromServer.add(bytes);
      this.#heldLength += bytes.length;
      if (this.#heldLength > MAX_HELD) throw new ParseError('the server sent more than a handshake needs');
      this.#readServer();
    });
  }

  /** The server has closed its side. */
  end(): void {
    this.#guard(() => {
      if (this.#state !== 'open' && this.#state !== 'client-flight')
        throw new UnreachableError('the server closed the connection during the handshake', {
          code: 'ERR_ATLS_HANDSHAKE',
        });
      this.#events.ended();
    });
  }

  /** Takes bytes that OpenSSL wants to send. */
  send(bytes: Uint8Array): void {
    this.#guard(() => {
      if (this.#state === 'open') {
        this.#events.toServer(bytes);
        return;
      }
      this.#fromClient.add(bytes);
      this.#readClient();
    });
  }

  /** Takes a traffic secret as OpenSSL logs it. The caller clears `secret` afterwards. */
  secret(label: string, secret: Uint8Array): void {
    this.#guard(() => {
      if (this.#state === 'open') return;
      if (label === 'SERVER_HANDSHAKE_TRAFFIC_SECRET' && this.#opener === undefined) {
        this.#opener = new RecordProtection(this.#knownSuite(), secret);
        this.#readServer();
      } else if (label === 'CLIENT_HANDSHAKE_TRAFFIC_SECRET' && this.#clientSecret === undefined) {
        // A copy: slice() of a Buffer would be a view.
        this.#clientSecret = new Uint8Array(secret);
      }
    });
  }

  /** Forgets all secrets. */
  clear(): void {
    this.#opener?.clear();
    this.#clientProtection?.clear();
    if (this.#clientSecret !== undefined) zero(this.#clientSecret);
  }

  #guard(work: () => void): void {
    if (this.#state === 'failed') return;
    try {
      work();
    } catch (error) {
      this.#fail(error);
    }
  }

  #fail(error: unknown): void {
    if (this.#state === 'failed') return;
    this.#state = 'failed';
    this.clear();
    this.#held = [];
    this.#events.failed(
      error instanceof AsterismError && !(error instanceof ParseError)
        ? error
        : new UnreachableError(`the handshake is malformed: ${(error as Error).message}`, {
            cause: error,
            code: 'ERR_ATLS_HANDSHAKE',
          }),
    );
  }

  #knownSuite(): Suite {
    if (this.#suite === undefined) throw new ParseError('secret before ServerHello');
    return this.#suite;
  }

  #readServer(): void {
    for (;;) {
      // Until the secret is there nothing protected can be read; it comes when OpenSSL has read the ServerHello.
      if (this.#state === 'server-flight' && this.#opener === undefined) return;
      if (this.#state !== 'hello' && this.#state !== 'server-flight') return;
      const record = this.#fromServer.next();
      if (record === undefined) return;
      if (this.#state === 'hello') this.#serverHello(record);
      else this.#serverFlight(record);
    }
  }

  #serverHello(record: TlsRecord): void {
    if (record.type === RECORD.handshake) {
      this.#serverMessages.add(record.fragment);
      const message = this.#serverMessages.next();
      if (message !== undefined) {
        if (message.type !== MESSAGE.serverHello)
          throw new ParseError('the server does not begin with ServerHello');
        // RFC 8446 5.1: no message spans a change of keys.
        if (this.#serverMessages.partial) throw new ParseError('bytes after ServerHello');
        const { retry, cipherSuite } = parseServerHello(message.body);
        const suite = suiteOf(cipherSuite);
        if (this.#suite !== undefined && this.#suite !== suite)
          throw new ParseError('the cipher suite changed');
        this.#suite = suite;
        if (retry) {
          if (this.#retried) throw new ParseError('a second HelloRetryRequest');
          this.#retried = true;
          this.#transcript.retry(suite);
          this.#transcript.add(message.encoded);
        } else {
          this.#transcript.add(message.encoded);
          this.#transcript.start(suite);
          this.#state = 'server-flight';
        }
      }
    } else if (record.type === RECORD.applicationData) {
      throw new ParseError('protected record before ServerHello');
    }
    this.#events.toClient(record.encoded);
  }

  #serverFlight(record: TlsRecord): void {
    this.#held.push(record.encoded);
    if (record.type === RECORD.changeCipherSpec) return;
    if (record.type === RECORD.alert) throw alert(record.fragment);
    if (record.type !== RECORD.applicationData)
      throw new ParseError('unprotected record in a protected flight');
    const { type, content } = this.#opener!.open(record.fragment, record.encoded.subarray(0, 5));
    if (type === RECORD.alert) throw alert(content);
    if (type !== RECORD.handshake || content.length === 0)
      throw new ParseError('something other than the handshake in the flight');
    this.#serverMessages.add(content);
    for (;;) {
      const message = this.#serverMessages.next();
      if (message === undefined) return;
      if (!this.#expected.includes(message.type))
        throw new ParseError(
          `handshake message ${message.type} where ${this.#expected.join(' or ')} was due`,
        );
      this.#transcript.add(message.encoded);
      switch (message.type) {
        case MESSAGE.encryptedExtensions:
          this.#expected = [MESSAGE.certificateRequest, MESSAGE.certificate];
          break;
        case MESSAGE.certificateRequest:
          this.#request = parseCertificateRequest(message.body);
          this.#expected = [MESSAGE.certificate];
          break;
        case MESSAGE.certificate:
          this.#certificate = parseCertificateMessage(message.body);
          this.#expected = [MESSAGE.certificateVerify];
          break;
        case MESSAGE.certificateVerify:
          this.#expected = [MESSAGE.finished];
          break;
        case MESSAGE.finished:
          if (this.#serverMessages.partial) throw new ParseError('bytes after Finished');
          this.#judge();
          return;
      }
    }
  }

  #judge(): void {
    this.#state = 'judging';
    this.#opener?.clear();
    this.#events.judge({ certificate: this.#certificate!, request: this.#request }).then(
      (authentication) => this.#guard(() => this.#release(authentication)),
      (error) => this.#fail(error),
    );
  }

  #release(authentication: ClientAuthentication | undefined): void {
    const rest = this.#fromServer.rest();
    const held = concat(...this.#held, rest);
    this.#held = [];
    if (authentication === undefined) {
      this.#open();
    } else {
      this.#authentication = authentication;
      this.#state = 'client-flight';
    }
    this.#events.toClient(held);
  }

  #readClient(): void {
    for (;;) {
      if (this.#state !== 'hello' && this.#state !== 'client-flight') {
        // OpenSSL has nothing to say while the server's flight is held, but an alert, say, may pass.
        if (this.#state !== 'open') {
          const record = this.#fromClient.next();
          if (record === undefined) return;
          this.#events.toServer(record.encoded);
          continue;
        }
        const rest = this.#fromClient.rest();
        if (rest.length > 0) this.#events.toServer(rest);
        return;
      }
      const record = this.#fromClient.next();
      if (record === undefined) return;
      if (this.#state === 'hello') this.#clientHello(record);
      else this.#clientFlight(record);
    }
  }

  #clientHello(record: TlsRecord): void {
    if (record.type === RECORD.handshake) {
      this.#clientMessages.add(record.fragment);
      const message = this.#clientMessages.next();
      if (message !== undefined) this.#transcript.add(message.encoded);
    }
    this.#events.toServer(record.encoded);
  }

  /** OpenSSL's empty Certificate and its Finished: looked at, dropped, replaced. */
  #clientFlight(record: TlsRecord): void {
    if (record.type !== RECORD.applicationData) {
      this.#events.toServer(record.encoded);
      return;
    }
    if (this.#clientSecret === undefined) throw new ParseError('client flight before its secret');
    this.#clientProtection ??= new RecordProtection(this.#knownSuite(), this.#clientSecret);
    const { type, content } = this.#clientProtection.open(record.fragment, record.encoded.subarray(0, 5));
    if (type === RECORD.alert) {
      // OpenSSL does not accept the server. Nothing of ours has gone out, so the record's number is right; and
      // nothing of ours may follow under the same number.
      this.#state = 'open';
      this.clear();
      this.#events.toServer(record.encoded);
      return;
    }
    if (type !== RECORD.handshake)
      throw new ParseError('something other than the handshake in the client flight');
    this.#clientMessages.add(content);
    for (;;) {
      const message = this.#clientMessages.next();
      if (message === undefined) return;
      if (message.type === MESSAGE.certificate && equal(message.encoded, EMPTY_CERTIFICATE)) continue;
      if (message.type !== MESSAGE.finished || this.#clientMessages.partial)
        throw new ParseError('the client flight is not the one that is replaced');
      this.#events.toServer(this.#ownFlight());
      this.#open();
      return;
    }
  }

  #ownFlight(): Uint8Array {
    const suite = this.#knownSuite();
    const secret = this.#clientSecret!;
    const transcript = this.#transcript;
    const { certificate, privateKey } = this.#authentication!;
    const shown = certificateMessage(certificate);
    transcript.add(shown);
    const signature = sign('sha256', certificateVerifyInput(transcript.digest()), privateKey);
    const proof = certificateVerifyMessage(signature);
    transcript.add(proof);
    const finished = finishedMessage(finishedData(suite, secret, transcript.digest()));
    // OpenSSL's records never went out: ours take their numbers.
    const protection = this.#clientProtection!;
    protection.restart();
    return protection.sealHandshake(concat(shown, proof, finished));
  }

  #open(): void {
    this.#state = 'open';
    this.clear();
    this.#events.opened();
  }
}

function alert(content: Uint8Array): Error {
  return new UnreachableError(
    `the server broke the handshake off with TLS alert ${content[1] ?? 'unknown'}`,
    {
      code: 'ERR_ATLS_HANDSHAKE',
    },
  );
}
