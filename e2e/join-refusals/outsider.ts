// A program in the place of a node: it calls from that node's address, with a TPM of its own that holds whatever PCRs
// it was told to. Standard input: an Attempt as JSON. Standard output: an Answer for each of its calls, as JSON.
import { text } from 'node:stream/consumers';
import { createQemuVtpmIssuer } from '@asterism/attestation/variants/qemu-vtpm/issue';
import { fromHex } from '@asterism/bytes/encoding';
import { AsterismError } from '@asterism/errors/errors';
import { makeKubeletRequest } from '@asterism/kubernetes/kubelet';
import { atlsClient } from '@asterism/rpc/atls-client';
import { API } from '@asterism/rpc/gen/join_pb';
import { startSwtpm } from '@asterism/testkit/swtpm';
import { withTpm } from '@asterism/tpm/with-tpm';

export interface Attempt {
  /** Address of a control plane. */
  readonly host: string;
  /** What is extended into PCRs, in hexadecimal digits: the digests of boot stages. */
  readonly events: readonly { readonly pcr: number; readonly digest: string }[];
  readonly calls: readonly Call[];
}

export type Call =
  | { readonly rejoin: string }
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

if (import.meta.main) {
  const { host, events, calls }: Attempt = JSON.parse(await text(process.stdin));
  await using tpm = await startSwtpm();
  for (const { pcr, digest } of events) {
    await withTpm(tpm.address, (open) => open.extendPcr(pcr, fromHex(digest)));
  }
  const issuer = createQemuVtpmIssuer({ tpmAddress: tpm.address, eventLogPath: undefined });
  const answers: Answer[] = [];
  for (const call of calls) {
    const client = atlsClient(API, { host, port: 30090, issuer, verifiers: [], callTimeoutMs: 15_000 });
    try {
      if ('rejoin' in call) await client.issueRejoinTicket({ diskUuid: call.rejoin });
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
