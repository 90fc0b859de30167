import { Reader } from '@asterism/bytes/reader';
import { Writer } from '@asterism/bytes/writer';
import { Alg, Command, DIGEST_SIZE, Handle, Tag } from './constants.ts';
import type { Deadline } from './deadline.ts';
import { RETRY_CODES, TpmError } from './response-code.ts';
import {
  encodePublicArea,
  type PcrSelection,
  type PublicArea,
  readPcrSelections,
  writePcrSelections,
} from './structures.ts';
import type { Transport } from './transport.ts';

const MAX_RETRIES = 20;
const RETRY_PAUSE_MS = 25;

/** The TPM commands used here (Part 3: Commands). Hierarchies and keys have empty authorisation values. */
export class Tpm {
  readonly #transport: Transport;
  readonly #deadline: Deadline;

  /** @param deadline of everything that is sent through this Tpm */
  constructor(transport: Transport, deadline: Deadline) {
    this.#transport = transport;
    this.#deadline = deadline;
  }

  async #run(
    name: string,
    code: number,
    handles: readonly number[],
    parameters: Writer | undefined,
    authorised: number,
    responseHandle = false,
  ): Promise<{ handle: number; reader: Reader }> {
    const writer = new Writer();
    for (const handle of handles) writer.u32be(handle);
    if (authorised > 0) {
      // One password session with an empty password for each handle that needs authorisation.
      const session = new Writer();
      for (let i = 0; i < authorised; i++) session.u32be(Handle.PASSWORD_SESSION).u16be(0).u8(0x01).u16be(0);
      writer.u32be(session.length).bytes(session.finish());
    }
    if (parameters !== undefined) writer.bytes(parameters.finish());
    const command = new Writer()
      .u16be(authorised > 0 ? Tag.SESSIONS : Tag.NO_SESSIONS)
      .u32be(10 + writer.length)
      .u32be(code)
      .bytes(writer.finish())
      .finish();
    for (let attempt = 0; ; attempt++) {
      const response = new Reader(await this.#transport.transmit(command, this.#deadline));
      const tag = response.u16be('response tag');
      const size = response.u32be('response size');
      const responseCode = response.u32be('response code');
      if (size !== response.offset + response.remaining) response.fail('response size does not match');
      if (RETRY_CODES.has(responseCode) && attempt < MAX_RETRIES) {
        await new Promise((resolve) => setTimeout(resolve, RETRY_PAUSE_MS));
        continue;
      }
      if (responseCode !== 0) throw new TpmError(name, responseCode);
      const handle = responseHandle ? response.u32be('response handle') : 0;
      const reader =
        tag === Tag.SESSIONS ? response.sub(response.u32be('parameter size'), 'parameters') : response;
      return { handle, reader };
    }
  }

  /** TPM2_Startup(CLEAR). */
  async startup(): Promise<void> {
    await this.#run('Startup', Command.STARTUP, [], new Writer().u16be(0), 0);
  }

  /** TPM2_Shutdown(CLEAR), to be sent before power is taken away. */
  async shutdown(): Promise<void> {
    await this.#run('Shutdown', Command.SHUTDOWN, [], new Writer().u16be(0), 0);
  }

  /** @param length 1 to 32 bytes */
  async getRandom(length: number): Promise<Uint8Array> {
    const { reader } = await this.#run('GetRandom', Command.GET_RANDOM, [], new Writer().u16be(length), 0);
    const bytes = reader.bytes(reader.u16be('size of random bytes'), 'random bytes');
    if (bytes.length !== length) reader.fail(`${bytes.length} random bytes instead of ${length}`);
    return bytes.slice();
  }

  /** Hash algorithms of the PCR banks that hold PCRs. */
  async pcrBanks(): Promise<number[]> {
    const parameters = new Writer().u32be(5).u32be(0).u32be(1);
    const { reader } = await this.#run('GetCapability', Command.GET_CAPABILITY, [], parameters, 0);
    reader.u8('more data');
    reader.u32be('capability');
    return readPcrSelections(reader)
      .filter((selection) => selection.pcrs.length > 0)
      .map((selection) => selection.hash);
  }

  /** Values of PCRs of one bank. The TPM gives at most eight at a time, so a concurrent extend may fall between. */
  async readPcrs(indexes: readonly number[], hash: number = Alg.SHA256): Promise<Map<number, Uint8Array>> {
    const values = new Map<number, Uint8Array>();
    let wanted = [...indexes];
    while (wanted.length > 0) {
      const parameters = new Writer();
      writePcrSelections(parameters, [{ hash, pcrs: wanted.slice(0, 8) }]);
      const { reader } = await this.#run('PCR_Read', Command.PCR_READ, [], parameters, 0);
      reader.u32be('update counter');
      const [selection] = readPcrSelections(reader);
      const count = reader.u32be('number of digests');
      const got = selection?.pcrs ?? [];
      if (count === 0 || count !== got.length) reader.fail('the TPM has no such PCRs');
      if (!got.every((pcr) => wanted.includes(pcr))) reader.fail('the TPM answered with other PCRs');
      for (const pcr of got) values.set(pcr, reader.bytes(reader.u16be('size of PCR'), 'PCR').slice());
      wanted = wanted.filter((pcr) => !values.has(pcr));
    }
    return values;
  }

  /** Extends a PCR of one bank with a digest of the bank's size. */
  async extendPcr(index: number, digest: Uint8Array, hash: number = Alg.SHA256): Promise<void> {
    if (digest.length !== DIGEST_SIZE.get(hash)) throw new RangeError(`a digest of ${digest.length} bytes`);
    const parameters = new Writer().u32be(1).u16be(hash).bytes(digest);
    await this.#run('PCR_Extend', Command.PCR_EXTEND, [index], parameters, 1);
  }

  /** Extends a PCR in every bank with the bank's hash of `data` (at most 1024 bytes). */
  async eventPcr(index: number, data: Uint8Array): Promise<void> {
    await this.#run('PCR_Event', Command.PCR_EVENT, [index], new Writer().u16be(data.length).bytes(data), 1);
  }

  /** @returns transient handle; flush it */
  async createPrimary(hierarchy: number, template: PublicArea): Promise<number> {
    const area = encodePublicArea(template);
    const parameters = new Writer()
      .u16be(4)
      .u16be(0)
      .u16be(0)
      .u16be(area.length)
      .bytes(area)
      .u16be(0)
      .u32be(0);
    const { handle } = await this.#run(
      'CreatePrimary',
      Command.CREATE_PRIMARY,
      [hierarchy],
      parameters,
      1,
      true,
    );
    return handle;
  }

  /** Makes a transient object persistent, or with a persistent `object` removes it. */
  async evictControl(object: number, persistent: number): Promise<void> {
    await this.#run(
      'EvictControl',
      Command.EVICT_CONTROL,
      [Handle.OWNER, object],
      new Writer().u32be(persistent),
      1,
    );
  }

  /** @returns encoded TPMT_PUBLIC of a loaded key */
  async readPublic(handle: number): Promise<Uint8Array> {
    const { reader } = await this.#run('ReadPublic', Command.READ_PUBLIC, [handle], undefined, 0);
    return reader.bytes(reader.u16be('public area size'), 'public area').slice();
  }

  async flush(handle: number): Promise<void> {
    await this.#run('FlushContext', Command.FLUSH_CONTEXT, [], new Writer().u32be(handle), 0);
  }

  /**
   * @param extraData qualifying data, at most 64 bytes
   * @returns encoded TPMS_ATTEST and TPMT_SIGNATURE
   */
  async quote(
    key: number,
    extraData: Uint8Array,
    selections: readonly PcrSelection[],
  ): Promise<{ attest: Uint8Array; signature: Uint8Array }> {
    const parameters = new Writer().u16be(extraData.length).bytes(extraData).u16be(Alg.NULL);
    writePcrSelections(parameters, selections);
    const { reader } = await this.#run('Quote', Command.QUOTE, [key], parameters, 1);
    const attest = reader.bytes(reader.u16be('attestation size'), 'attestation').slice();
    return { attest, signature: reader.rest().slice() };
  }

  /** The whole content of an NV index that its own (empty) authorisation may read: TPMA_NV_AUTHREAD. */
  async readNv(index: number): Promise<Uint8Array> {
    const { reader } = await this.#run('NV_ReadPublic', Command.NV_READ_PUBLIC, [index], undefined, 0);
    const area = reader.sub(reader.u16be('NV public size'), 'NV public');
    area.bytes(4 + 2 + 4, 'index, name algorithm, attributes');
    area.bytes(area.u16be('policy size'), 'policy');
    const size = area.u16be('data size');
    const content = new Uint8Array(size);
    for (let offset = 0; offset < size; offset += 512) {
      const length = Math.min(512, size - offset);
      const parameters = new Writer().u16be(length).u16be(offset);
      const part = await this.#run('NV_Read', Command.NV_READ, [index, index], parameters, 1);
      const bytes = part.reader.bytes(part.reader.u16be('NV data size'), 'NV data');
      if (bytes.length !== length) part.reader.fail(`${bytes.length} bytes of NV data instead of ${length}`);
      content.set(bytes, offset);
    }
    return content;
  }
}
