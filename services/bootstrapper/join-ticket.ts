import { readFile, rm } from 'node:fs/promises';
import { fromBase64, toBase64 } from '@asterism/bytes/encoding';
import { writeFileAtomic } from '@asterism/disk/atomic-file';
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
  measurementSalt: base64,
  kubeletCert: z.string().max(100_000),
  kubeletKey: z.string().max(10_000),
  apiServerEndpoint: z.string().regex(/^[0-9a-zA-Z.-]{1,253}:\d{1,5}$/),
  token: z.string().regex(/^[a-z0-9]{6}\.[a-z0-9]{16}$/),
  caCertHash: z.string().regex(/^sha256:[0-9a-f]{64}$/),
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
    measurementSalt: toBase64(response.measurementSalt),
    kubeletCert: new TextDecoder().decode(response.kubeletCert),
    kubeletKey,
    apiServerEndpoint: response.apiServerEndpoint,
    token: response.token,
    caCertHash: response.discoveryTokenCaCertHash,
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
  const names = new Set(parsed.data.files.map(({ name }) => name));
  const wanted = controlPlane ? CONTROL_PLANE_FILES.length : 0;
  if (names.size !== wanted || parsed.data.files.length !== wanted) {
    throw bad(`${names.size} control-plane files came, ${wanted} belong to this role`);
  }
  for (const component of parsed.data.components) checkComponent(component, COMPONENT_ROOTS);
  return parsed.data;
}

/** JoinService makes tokens that live this long. */
const TOKEN_LIFETIME_MS = 15 * 60_000;

export function ticketIsExpired(ticket: JoinTicket, now: Date): boolean {
  return now.getTime() > Date.parse(ticket.receivedAt) + TOKEN_LIFETIME_MS;
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

function bad(why: string): AsterismError {
  return new AsterismError('ERR_JOIN_TICKET', `the join ticket cannot be used: ${why}`);
}
