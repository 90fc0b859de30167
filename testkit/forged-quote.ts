import { createHash, generateKeyPairSync, type KeyObject, sign } from 'node:crypto';
import { concat } from '@asterism/bytes/bytes';
import { fromBase64Url, toBase64, toUtf8 } from '@asterism/bytes/encoding';
import { Writer } from '@asterism/bytes/writer';
import { Alg, Curve, Handle, Tag, TPM_GENERATED } from '@asterism/tpm/constants';
import { encodePublicArea, type PcrSelection, writePcrSelections } from '@asterism/tpm/structures';
import { AK_ATTRIBUTES } from '@asterism/tpm/template';

const sha256 = (...parts: readonly Uint8Array[]): Uint8Array =>
  new Uint8Array(
    createHash('sha256')
      .update(concat(...parts))
      .digest(),
  );

/** What a forger writes into the parts of a quote; what is left out is as a TPM would have it. */
export interface Forgery {
  readonly magic?: number;
  readonly type?: number;
  readonly qualifiedSigner?: Uint8Array;
  readonly extraData?: Uint8Array;
  readonly selections?: readonly PcrSelection[];
  readonly pcrDigest?: Uint8Array;
  /** TPM_ALG_ID beside the quote in the document. */
  readonly bank?: number;
  /** Hash in the signature structure, and that the signature is really over. */
  readonly signatureHash?: 'sha256' | 'sha384' | 'sha1';
  readonly eventLog?: Uint8Array;
}

/** Software that says it is a TPM: signs whatever it is told with a P-256 key of its own. */
export class ForgingTpm {
  readonly publicArea: Uint8Array;
  readonly #key: KeyObject;

  /** @param attributes TPMA_OBJECT that it claims for its key */
  constructor(attributes: number = AK_ATTRIBUTES) {
    const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    this.#key = privateKey;
    const { x, y } = publicKey.export({ format: 'jwk' });
    const number = (text: string | undefined) => fromBase64Url((text ?? '').padEnd(44, '='));
    this.publicArea = encodePublicArea({
      nameAlg: Alg.SHA256,
      attributes,
      authPolicy: new Uint8Array(),
      scheme: Alg.ECDSA,
      schemeHash: Alg.SHA256,
      key: { type: 'ecc', curve: Curve.NIST_P256, x: number(x), y: number(y) },
    });
  }

  /** Qualified name that the key would have as a primary key of the owner hierarchy. */
  get qualifiedName(): Uint8Array {
    const name = concat(Uint8Array.of(0, Alg.SHA256), sha256(this.publicArea));
    return concat(Uint8Array.of(0, Alg.SHA256), sha256(new Writer().u32be(Handle.OWNER).finish(), name));
  }

  /** A v2.6 document with a SHA-256 quote of the given PCR values. */
  document(
    userData: Uint8Array,
    nonce: Uint8Array,
    pcrs: ReadonlyMap<number, Uint8Array>,
    forgery: Forgery = {},
  ): Uint8Array {
    const sorted = [...pcrs].sort(([a], [b]) => a - b);
    const indexes = sorted.map(([index]) => index);
    const attest = this.#attest({
      extraData: sha256(userData, nonce),
      selections: [{ hash: Alg.SHA256, pcrs: indexes }],
      pcrDigest: sha256(...sorted.map(([, value]) => value)),
      ...forgery,
    });
    const hash = forgery.signatureHash ?? 'sha256';
    const raw = sign(hash, attest, { key: this.#key, dsaEncoding: 'ieee-p1363' });
    const hashAlg = { sha1: Alg.SHA1, sha256: Alg.SHA256, sha384: Alg.SHA384 }[hash];
    const signature = new Writer().u16be(Alg.ECDSA).u16be(hashAlg);
    for (const half of [raw.subarray(0, 32), raw.subarray(32)]) signature.u16be(32).bytes(half);
    const quote = {
      quote: toBase64(attest),
      raw_sig: toBase64(signature.finish()),
      pcrs: {
        hash: forgery.bank ?? Alg.SHA256,
        pcrs: Object.fromEntries(sorted.map(([index, value]) => [String(index), toBase64(value)])),
      },
    };
    const log = forgery.eventLog === undefined ? {} : { event_log: toBase64(forgery.eventLog) };
    return toUtf8(
      JSON.stringify({
        Attestation: { ak_pub: toBase64(this.publicArea), quotes: [quote], ...log, TeeAttestation: null },
        InstanceInfo: null,
        UserData: toBase64(userData),
      }),
    );
  }

  #attest(
    parts: Forgery & { extraData: Uint8Array; selections: readonly PcrSelection[]; pcrDigest: Uint8Array },
  ) {
    const signer = parts.qualifiedSigner ?? this.qualifiedName;
    const writer = new Writer().u32be(parts.magic ?? TPM_GENERATED).u16be(parts.type ?? Tag.ATTEST_QUOTE);
    writer.u16be(signer.length).bytes(signer).u16be(parts.extraData.length).bytes(parts.extraData);
    writer.u64be(1n).u32be(0).u32be(0).u8(1).u64be(1n);
    writePcrSelections(writer, parts.selections);
    return writer.u16be(parts.pcrDigest.length).bytes(parts.pcrDigest).finish();
  }
}
