import { randomBytes } from 'node:crypto';
import { Agent, request } from 'node:https';
import type { KmsChoice } from '@asterism/kms/open';
import { renderKmsUri } from '@asterism/kms/uri';
import type { Moto } from '@asterism/testkit/counterparts/moto';
import type { OpenBao } from '@asterism/testkit/counterparts/openbao';

export const CLUSTER_ID = '0a'.repeat(32);

type Choice = KmsChoice & { readonly credentials: Record<string, string> };

/** A KMS with two KEKs. */
export interface TwoKeks {
  readonly name: string;
  readonly old: Choice;
  readonly next: Choice;
  /** The calls that re-wrapping takes of the KMS for one key (unwrap, wrap, unwrap), asked as plainly as can be. */
  bare(): Promise<void>;
}

export async function motoKms(moto: Moto): Promise<TwoKeks> {
  const keys = [await moto.createKey(), await moto.createKey()] as const;
  const context = { EncryptionContext: { asterism: 'x'.repeat(140) } };
  const Plaintext = randomBytes(32).toString('base64');
  const { CiphertextBlob } = await moto.kms('Encrypt', { KeyId: keys[0], Plaintext, ...context });
  const choice = (keyName: string, generation: number) => ({
    kmsUri: renderKmsUri({
      kind: 'external',
      name: 'aws',
      parameters: { region: moto.region, keyName, endpoint: moto.endpoint },
      ...{ clusterId: CLUSTER_ID, generation, acceptV26Blobs: false, credentials: {} },
    }),
    credentials: { accessKeyID: 'AKIAEXAMPLE', accessKey: 'bench' },
  });
  return {
    name: 'AWS KMS (moto)',
    old: choice(keys[0], 1),
    next: choice(keys[1], 2),
    async bare() {
      await moto.kms('Decrypt', { KeyId: keys[0], CiphertextBlob, ...context });
      const wrapped = await moto.kms('Encrypt', { KeyId: keys[1], Plaintext, ...context });
      await moto.kms('Decrypt', { KeyId: keys[1], CiphertextBlob: wrapped.CiphertextBlob, ...context });
    },
  };
}

export async function openBaoKms(bao: OpenBao): Promise<TwoKeks> {
  for (const name of ['old', 'new'])
    await bao.admin('POST', `transit/keys/${name}`, { type: 'aes256-gcm96' });
  const agent = new Agent({ keepAlive: true, ca: bao.ca });
  const { hostname, port } = new URL(bao.address);
  const call = (path: string, body: object) =>
    new Promise<{ data: Record<string, string> }>((resolve, reject) => {
      const text = JSON.stringify(body);
      const outgoing = request(
        {
          ...{ agent, hostname, port, method: 'POST', path: `/v1/transit/${path}` },
          headers: { 'x-vault-token': bao.rootToken, 'content-length': text.length },
        },
        (response) => {
          let answer = '';
          response.setEncoding('utf8');
          response.on('data', (chunk) => {
            answer += chunk;
          });
          response.on('end', () =>
            response.statusCode === 200 ? resolve(JSON.parse(answer)) : reject(new Error(answer)),
          );
        },
      );
      outgoing.on('error', reject);
      outgoing.end(text);
    });
  const associated_data = Buffer.alloc(140, 'x').toString('base64');
  const plaintext = randomBytes(32).toString('base64');
  const { data } = await call('encrypt/old', { plaintext, associated_data });
  const choice = (keyName: string, generation: number) => ({
    kmsUri: renderKmsUri({
      kind: 'external',
      name: 'vault',
      parameters: { address: bao.address, keyName },
      ...{ clusterId: CLUSTER_ID, generation, acceptV26Blobs: false, credentials: {} },
    }),
    credentials: { caCertificate: bao.ca, token: bao.rootToken },
  });
  return {
    name: 'OpenBao',
    old: choice('old', 1),
    next: choice('new', 2),
    async bare() {
      await call('decrypt/old', { ciphertext: data.ciphertext, associated_data });
      const wrapped = await call('encrypt/new', { plaintext, associated_data });
      await call('decrypt/new', { ciphertext: wrapped.data.ciphertext, associated_data });
    },
  };
}
