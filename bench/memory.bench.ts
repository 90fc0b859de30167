import { randomBytes } from 'node:crypto';
import { createQemuVtpmIssuer } from '@asterism/attestation/variants/qemu-vtpm/issue';
import { toBase64Url } from '@asterism/bytes/encoding';
import { bundle } from '@asterism/image/bundle';
import { atlsClient } from '@asterism/rpc/atls-client';
import { API } from '@asterism/rpc/gen/join_pb';
import type { ServiceName } from '@asterism/testkit/service-process';
import { kubeletCsr, type ServicesOfCluster, startServices } from '@asterism/testkit/services';
import { temporaryFolder } from '@asterism/testkit/temporary-folder';
import type { Bench, Row } from './bench.ts';
import { load } from './load.ts';

const HOST = '127.0.0.1';
const AIM_MB = 120;
/** As many as a single address may ask for at once. */
const JOINS = 15;
const DOCUMENTS = 40;

/** Resident memory of each service as it is shipped (bundle, pinned Node): after its start, and after work. */
export default {
  name: 'memory',
  async run({ progress }) {
    if (process.getuid?.() !== 0) throw new Error('mount namespaces need root');
    await using folder = await temporaryFolder();
    const bundled = async (...names: ServiceName[]) => {
      const bundles = new Map<ServiceName, string>();
      for (const name of names) {
        bundles.set(name, folder.file(`${name}.mjs`));
        await bundle(`services/${name}/main.ts`, folder.file(`${name}.mjs`));
      }
      return startServices(bundles);
    };
    const rows: Row[] = [];
    const measure = async ({ processes }: ServicesOfCluster, when: string) => {
      for (const [name, service] of processes)
        rows.push({
          what: `${name}, ${when}`,
          value: (await service.residentMemory()) / 1e6,
          unit: 'MB',
          note: `aim: under ${AIM_MB} MB`,
        });
    };

    progress('key-service and join-service');
    {
      await using services = await bundled('key-service', 'join-service');
      await measure(services, 'after its start');
      const issuer = createQemuVtpmIssuer({ tpmAddress: services.tpm.address, eventLogPath: undefined });
      const certificateRequest = kubeletCsr('worker-0', HOST);
      for (let n = 0; n < JOINS; n++) {
        const client = atlsClient(API, { host: HOST, port: 9090, issuer, verifiers: [] });
        const diskUuid = `00000000-0000-4000-8000-${String(n).padStart(12, '0')}`;
        await client.issueJoinTicket({ diskUuid, certificateRequest });
        client.close();
      }
      await measure(services, `after ${JOINS} joins`);
    }
    progress('verification-service');
    {
      await using services = await bundled('verification-service');
      await measure(services, 'after its start');
      await load(DOCUMENTS, 4, async () => {
        const nonce = encodeURIComponent(toBase64Url(new Uint8Array(randomBytes(32))));
        const answer = await fetch(`http://${HOST}:8080/?nonce=${nonce}`);
        if (!answer.ok) throw new Error(`VerificationService: HTTP status ${answer.status}`);
        await answer.arrayBuffer();
      });
      await measure(services, `after ${DOCUMENTS} documents`);
    }
    return rows;
  },
} satisfies Bench;
