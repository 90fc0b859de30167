import { Writer } from '@asterism/bytes/writer';
import { ParseError, UnreachableError } from '@asterism/errors/errors';
import { HandshakeGate } from './handshake-gate.ts';
import { parseCertificateMessage, parseCertificateRequest, parseServerHello } from './messages.ts';
import { RecordProtection, suiteOf } from './record-protection.ts';
import { MessageReader } from './records.ts';

const SECRET = new Uint8Array(48).fill(1);
const hex = (text: string) => new Uint8Array(Buffer.from(text, 'hex'));

/** ServerHello of TLS 1.3 with AES-256-GCM, in its record. */
function serverHello(): Uint8Array {
  const body = new Writer().u16be(0x0303).bytes(new Uint8Array(32)).u8(0).u16be(0x1302).u8(0);
  body.u16be(6).u16be(43).u16be(2).u16be(0x0304);
  const message = new Writer().u8(2).u24be(body.length).bytes(body.finish());
  return new Writer().u8(22).u16be(0x0303).u16be(message.length).bytes(message.finish()).finish();
}

// EncryptedExtensions, CertificateRequest, Certificate, CertificateVerify and Finished, each in its smallest form.
const FLIGHT = hex(
  `${'080000020000'}${'0d00000b000008000d000400020403'}${'0b00000a00000006000001aa0000'}${'0f00000404030000'}14000000`,
);

export const name = 'atls/gate';

/**
 * What an unauthenticated server sends through the gate. The first byte chooses: bytes as they come from the
 * network, or (1) the contents of protected records, which a hostile server can seal as well.
 */
export const seeds = [Uint8Array.of(0, ...serverHello()), Uint8Array.of(1, ...FLIGHT), hex('021122')];

export async function run(input: Uint8Array): Promise<void> {
  const rest = input.subarray(1);
  expectParseErrors(() => {
    const messages = new MessageReader();
    messages.add(rest);
    for (let message = messages.next(); message !== undefined; message = messages.next()) {
      const { body } = message;
      for (const parse of [parseServerHello, parseCertificateRequest, parseCertificateMessage])
        expectParseErrors(() => void parse(body));
    }
  });

  let judged = false;
  let opened = false;
  let wrong: Error | undefined;
  const gate = new HandshakeGate({
    toClient: () => {},
    toServer: () => {},
    judge: async () => {
      judged = true;
      throw new UnreachableError('judged');
    },
    ended: () => {},
    opened: () => {
      opened = true;
    },
    failed: (error) => {
      if (!(error instanceof UnreachableError)) wrong = error;
    },
  });
  if (input[0] === 1) {
    gate.receive(serverHello());
    gate.secret('SERVER_HANDSHAKE_TRAFFIC_SECRET', SECRET);
    gate.receive(new RecordProtection(suiteOf(0x1302), SECRET).sealHandshake(rest));
  } else {
    gate.receive(rest);
    gate.secret('SERVER_HANDSHAKE_TRAFFIC_SECRET', SECRET);
  }
  gate.end();
  await undefined;
  if (wrong !== undefined) throw wrong;
  if (opened) throw new Error('the gate opened');
  if (judged && input[0] !== 1) throw new Error('something was judged that nobody could have sealed');
}

function expectParseErrors(work: () => void): void {
  try {
    work();
  } catch (error) {
    if (!(error instanceof ParseError)) throw error;
  }
}
