import { Writer } from '@asterism/bytes/writer';
import { ParseError } from '@asterism/errors/errors';
import { Handle } from './constants.ts';
import { RETRY_CODES, TpmError } from './response-code.ts';
import { akTemplate } from './template.ts';
import { Tpm } from './tpm.ts';

export const name = 'tpm/responses';

const response = (tag: number, body: readonly number[]) =>
  new Writer()
    .u16be(tag)
    .u32be(10 + body.length)
    .u32be(0)
    .bytes(Uint8Array.from(body))
    .finish();

export const seeds = [
  response(0x8001, [0, 4, 1, 2, 3, 4]),
  response(0x8001, [0, 0, 0, 0, 5, 0, 0, 0, 1, 0, 11, 3, 255, 255, 255]),
  response(0x8001, [0, 0, 0, 7, 0, 0, 0, 1, 0, 11, 3, 1, 0, 0, 0, 0, 0, 1, 0, 2, 8, 9]),
  response(0x8002, [0x80, 0, 0, 1, 0, 0, 0, 2, 9, 9, 0, 0, 1, 0, 0]),
  response(0x8002, [0, 0, 0, 6, 0, 2, 5, 5, 6, 6, 0, 0, 1, 0, 0]),
  response(0x8001, [0, 14, 1, 0x50, 0, 32, 0, 11, 0, 2, 0, 2, 0, 0, 0, 8, 0, 0]),
];

/** A TPM (or what is at its socket) may answer anything to any command. */
export async function run(input: Uint8Array): Promise<void> {
  if (input.length >= 10 && RETRY_CODES.has(new DataView(input.buffer).getUint32(6))) return;
  const transport = { transmit: async () => input, close: async () => {} };
  const tpm = new Tpm(transport, Number.POSITIVE_INFINITY);
  let refusals = 0;
  const commands = [
    () => tpm.getRandom(4),
    () => tpm.pcrBanks(),
    () => tpm.readPcrs([0]),
    () => tpm.createPrimary(Handle.OWNER, akTemplate('ecc-p256')),
    () => tpm.quote(0x81008f01, new Uint8Array(32), []),
    () => tpm.readPublic(0x81008f01),
    () => tpm.readNv(0x1500020),
  ];
  for (const command of commands) {
    try {
      await command();
    } catch (error) {
      if (!(error instanceof ParseError || error instanceof TpmError)) throw error;
      refusals++;
    }
  }
  if (refusals === commands.length) throw new ParseError('no command takes this answer');
}
