import type { Socket } from 'node:net';
import { Duplex } from 'node:stream';
import { type ClientAuthentication, HandshakeGate, type ServerFlight } from './handshake-gate.ts';

export interface GateStreamOptions {
  judge(flight: ServerFlight): Promise<ClientAuthentication | undefined>;
  /** The handshake cannot go on. The stream is destroyed. */
  failed(error: Error): void;
  /** The gate is open: this side has shown what was asked of it. */
  opened(): void;
}

/** A TCP connection with a HandshakeGate in it: what a TLS socket is put on. */
export class GateStream extends Duplex {
  readonly #raw: Socket;
  readonly #gate: HandshakeGate;

  constructor(raw: Socket, options: GateStreamOptions) {
    super({ allowHalfOpen: true });
    this.#raw = raw;
    this.#gate = new HandshakeGate({
      toClient: (bytes) => {
        if (!this.push(bytes)) raw.pause();
      },
      toServer: (bytes) => {
        raw.write(bytes);
      },
      judge: options.judge,
      failed: (error) => {
        options.failed(error);
        this.destroy();
      },
      opened: options.opened,
      ended: () => {
        this.push(null);
      },
    });
    raw.on('data', (bytes) => this.#gate.receive(bytes));
    raw.once('end', () => this.#gate.end());
    raw.once('error', (error) => this.destroy(error));
    raw.once('close', () => this.destroy());
  }

  /** Takes a line of OpenSSL's key log (label, client random, secret; hexadecimal) and clears it. */
  keyLog(line: Buffer): void {
    const [label = '', , hex = ''] = line.toString('latin1').trim().split(' ');
    const secret = Buffer.from(hex, 'hex');
    this.#gate.secret(label, secret);
    secret.fill(0);
    line.fill(0);
  }

  override _read(): void {
    this.#raw.resume();
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    if (this.#gate.open) {
      this.#raw.write(chunk, done);
      return;
    }
    this.#gate.send(chunk);
    done();
  }

  override _final(done: (error?: Error | null) => void): void {
    this.#raw.end(() => done());
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    this.#gate.clear();
    this.#raw.destroy();
    done(error);
  }
}
