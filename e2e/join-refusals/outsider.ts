// A program in the place of a node: it calls from that node's address, with a TPM of its own that holds whatever PCRs
// it was told to. Standard input: an Attempt as JSON. Standard output: an Answer for each of its calls, as JSON.
import { text } from 'node:stream/consumers';
import type { Issuer } from '@asterism/attestation/types';
import { createQemuVtpmIssuer } from '@asterism/attestation/variants/qemu-vtpm/issue';
import { fromHex, fromUtf8, toUtf8 } from '@asterism/bytes/encoding';
import { AsterismError } from '@asterism/errors/errors';
import { makeKubeletRequest } from '@asterism/kubernetes/kubelet';
import { atlsClient } from '@asterism/rpc/atls-client';
import { API } from '@asterism/rpc/gen/join_pb';
import { ForgingTpm } from '@asterism/testkit/forged-quote';
import { type Swtpm, startSwtpm } from '@asterism/testkit/swtpm';
import { Alg } from '@asterism/tpm/constants';
import { withTpm } from '@asterism/tpm/with-tpm';

export interface Attempt {
  /** Address of a control plane. */
  readonly host: string;
  /** What is extended into PCRs, in hexadecimal digits: the digests of boot stages. */
  readonly events: readonly { readonly pcr: number; readonly digest: string }[];
  readonly calls: readonly Call[];
  /** Without it the TPM's own, fresh for each handshake. */
  readonly evidence?: 'replayed' | { readonly claims: Attempt['events'] };
}

export type Call =
  | { readonly rejoin: string }
  | { readonly diskKeys: string; readonly proven?: string }
  | {
      readonly join: string;
      readonly controlPlane?: boolean;
      readonly nodeName: string;
      readonly address: string;
    };

export interface Answer {
  readonly granted: boolean;
  /** Of the error; of a handshake that was refused too. */
  readonly code?: string | undefined;
  readonly message?: string;
}

async function boot({ address }: Swtpm, events: Attempt['events']): Promise<void> {
  for (const { pcr, digest } of events) {
    await withTpm(address, (open) => open.extendPcr(pcr, fromHex(digest)));
  }
}

const ALL_PCRS = Array.from({ length: 24 }, (_, index) => index);

/** SHA-256 PCRs of a machine that measured these events. */
async function pcrsAfter(events: Attempt['events']): Promise<ReadonlyMap<number, Uint8Array>> {
  await using tpm = await startSwtpm();
  await boot(tpm, events);
  return await withTpm(tpm.address, (open) => open.readPcrs(ALL_PCRS));
}

/** Shows the evidence of its first handshake in every later one. */
function replaying(genuine: Issuer): Issuer {
  let first: Promise<Uint8Array> | undefined;
  return { ...genuine, issue: (...args) => (first ??= genuine.issue(...args)) };
}

/**
 * Shows a genuine SHA-384 quote, and beside it a SHA-256 quote of other PCR values, right in everything but its
 * signature: who verifies the one and compares the other lets it in.
 */
function mixing(genuine: Issuer, pcrs: ReadonlyMap<number, Uint8Array>): Issuer {
  return {
    ...genuine,
    async issue(userData, nonce, signal) {
      const document = JSON.parse(fromUtf8(await genuine.issue(userData, nonce, signal)));
      const forged = JSON.parse(fromUtf8(new ForgingTpm().document(userData, nonce, pcrs)));
      const { quotes } = document.Attestation;
      const true384 = quotes.filter((quote: { pcrs: { hash: number } }) => quote.pcrs.hash === Alg.SHA384);
      document.Attestation.quotes = [...true384, ...forged.Attestation.quotes];
      return toUtf8(JSON.stringify(document));
    },
  };
}

if (import.meta.main) {
  const { host, events, calls, evidence }: Attempt = JSON.parse(await text(process.stdin));
  await using tpm = await startSwtpm('sha256,sha384');
  await boot(tpm, events);
  const genuine = createQemuVtpmIssuer({ tpmAddress: tpm.address, eventLogPath: undefined });
  const issuer =
    evidence === undefined
      ? genuine
      : evidence === 'replayed'
        ? replaying(genuine)
        : mixing(genuine, await pcrsAfter(evidence.claims));
  const answers: Answer[] = [];
  for (const call of calls) {
    const client = atlsClient(API, { host, port: 30090, issuer, verifiers: [], callTimeoutMs: 15_000 });
    try {
      if ('rejoin' in call) await client.issueRejoinTicket({ diskUuid: call.rejoin });
      else if ('diskKeys' in call)
        await client.issueDiskKeys({ diskUuid: call.diskKeys, proven: call.proven ?? '' });
      else {
        const { csr } = await makeKubeletRequest(call.nodeName, call.address);
        const isControlPlane = call.controlPlane ?? false;
        await client.issueJoinTicket({ diskUuid: call.join, certificateRequest: csr, isControlPlane });
      }
      answers.push({ granted: true });
    } catch (error) {
      const code = error instanceof AsterismError ? error.code : undefined;
      answers.push({ granted: false, code, message: String(error) });
    } finally {
      client.close();
    }
  }
  process.stdout.write(JSON.stringify(answers));
}
