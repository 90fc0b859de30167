import { createHash, createPrivateKey, X509Certificate } from 'node:crypto';
import { readFile, rm } from 'node:fs/promises';
import { fromBase64, toBase64, toUtf8 } from '@asterism/bytes/encoding';
import { writeFileAtomic } from '@asterism/disk/atomic-file';
import { type DiskKeyToken, MAX_KEY_TOKEN_BYTES, parseKeyToken } from '@asterism/disk/key-token';
import { AsterismError, ParseError } from '@asterism/errors/errors';
import { checkComponent } from '@asterism/kubernetes/install';
import type { IssueJoinTicketResponse } from '@asterism/rpc/gen/join_pb';
import { z } from 'zod';
import { COMPONENT_ROOTS } from './init-request.ts';

/** Files of the control plane that a JoinService may give; any other name is refused. */
export const CONTROL_PLANE_FILES = [
  'ca.key',
  'ca.crt',
  'sa.key',
  'sa.pub',
  'front-proxy-ca.key',
  'front-proxy-ca.crt',
  'etcd/ca.key',
  'etcd/ca.crt',
] as const;

const base64 = z.string().max(200_000);
const schema = z.strictObject({
  receivedAt: z.string().max(40),
  stateDiskKey: base64,
  /** For the header of the disk, see libs/disk/key-token.ts. */
  diskKeyToken: z.string().max(MAX_KEY_TOKEN_BYTES),
  measurementSalt: base64,
  kubeletCert: z.string().max(100_000),
  kubeletKey: z.string().max(10_000),
  apiServerEndpoint: z.string().regex(/^[0-9a-zA-Z.-]{1,253}:\d{1,5}$/),
  /** PEM. */
  caCert: z.string().max(100_000),
  files: z
    .array(z.strictObject({ name: z.enum(CONTROL_PLANE_FILES), data: base64 }))
    .max(CONTROL_PLANE_FILES.length),
  components: z
    .array(
      z.strictObject({ url: z.string(), hash: z.string(), installPath: z.string(), extract: z.boolean() }),
    )
    .max(64),
});

/** A ticket that was checked, as it is kept on the state disk while the join goes on. */
export type JoinTicket = z.infer<typeof schema>;

/** @throws AsterismError ERR_JOIN_TICKET the answer is not one that this node can join with */
export function checkTicket(
  response: IssueJoinTicketResponse,
  kubeletKey: string,
  controlPlane: boolean,
  now: Date,
): JoinTicket {
  const parsed = schema.safeParse({
    receivedAt: now.toISOString(),
    stateDiskKey: toBase64(response.stateDiskKey),
    diskKeyToken: new TextDecoder().decode(response.diskKeyToken),
    measurementSalt: toBase64(response.measurementSalt),
    kubeletCert: new TextDecoder().decode(response.kubeletCert),
    kubeletKey,
    apiServerEndpoint: response.apiServerEndpoint,
    caCert: new TextDecoder().decode(response.clusterCaCert),
    files: response.controlPlaneFiles.map(({ name, data }) => ({ name, data: toBase64(data) })),
    components: response.kubernetesComponents.map(({ url, hash, installPath, extract }) => ({
      url,
      hash,
      installPath,
      extract,
    })),
  });
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    // The value itself may be a key: only its place is named.
    throw bad(`field ${issue?.path.join('.') ?? '?'} is malformed`);
  }
  if (response.stateDiskKey.length !== 32) throw bad('the state disk key has not 32 bytes');
  if (response.measurementSalt.length !== 32) throw bad('the measurement salt has not 32 bytes');
  if (response.measurementSecret.length !== 32) throw bad('the measurement secret has not 32 bytes');
  try {
    diskKeyTokenOf(parsed.data);
  } catch (cause) {
    throw bad('what it says of the names of keys cannot be read', cause);
  }
  const names = new Set(parsed.data.files.map(({ name }) => name));
  const wanted = controlPlane ? CONTROL_PLANE_FILES.length : 0;
  if (names.size !== wanted || parsed.data.files.length !== wanted) {
    throw bad(`${names.size} control-plane files came, ${wanted} belong to this role`);
  }
  checkCertificates(parsed.data, response.discoveryTokenCaCertHash);
  for (const component of parsed.data.components) checkComponent(component, COMPONENT_ROOTS);
  return parsed.data;
}

/** The certificate is this node's own and of the cluster's CA, and all that says which CA that is agrees. */
function checkCertificates(ticket: JoinTicket, pin: string): void {
  let ca: X509Certificate;
  let own: X509Certificate;
  try {
    ca = new X509Certificate(ticket.caCert);
    own = new X509Certificate(ticket.kubeletCert);
  } catch (cause) {
    throw bad('a certificate in it cannot be read', cause);
  }
  const spki = ca.publicKey.export({ type: 'spki', format: 'der' });
  if (pin !== `sha256:${createHash('sha256').update(spki).digest('hex')}`)
    throw bad('the CA certificate in it is not the one that it names');
  const shared = ticket.files.find(({ name }) => name === 'ca.crt');
  if (shared !== undefined && shared.data !== toBase64(new TextEncoder().encode(ticket.caCert)))
    throw bad('it has two CA certificates');
  if (!own.checkPrivateKey(createPrivateKey(ticket.kubeletKey)) || !own.verify(ca.publicKey))
    throw bad("the kubelet's certificate is not for its key, or not of the cluster's CA");
}

/**
 * A node that has not joined in this time begins anew, with another ticket: what this one names (components, endpoint)
 * may have changed.
 */
const TICKET_LIFETIME_MS = 15 * 60_000;

export function ticketIsExpired(ticket: JoinTicket, now: Date): boolean {
  return now.getTime() > Date.parse(ticket.receivedAt) + TICKET_LIFETIME_MS;
}

export async function saveTicket(path: string, ticket: JoinTicket): Promise<void> {
  await writeFileAtomic(path, JSON.stringify(ticket), 0o600);
}

/** @throws ParseError there is no usable ticket */
export async function loadTicket(path: string): Promise<JoinTicket> {
  try {
    return schema.parse(JSON.parse(await readFile(path, 'utf8')));
  } catch (cause) {
    throw new ParseError(`${path} holds no join ticket`, { cause });
  }
}

export async function removeTicket(path: string): Promise<void> {
  await rm(path, { force: true });
}

export function stateDiskKeyOf(ticket: JoinTicket): Uint8Array {
  return fromBase64(ticket.stateDiskKey);
}

/** @throws ParseError */
export function diskKeyTokenOf(ticket: JoinTicket): DiskKeyToken {
  return parseKeyToken(toUtf8(ticket.diskKeyToken));
}

function bad(why: string, cause?: unknown): AsterismError {
  return new AsterismError('ERR_JOIN_TICKET', `the join ticket cannot be used: ${why}`, { cause });
}
