import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { KeyHomes } from '@asterism/key-service/key-homes';
import { openKeyHome } from '@asterism/kms/open';
import { openFolderStore } from '@asterism/kms/stores/folder/store';
import { motoPython, startMoto } from '@asterism/testkit/counterparts/moto';
import { openBaoProgram, startOpenBao } from '@asterism/testkit/counterparts/openbao';
import { startKeyService } from '@asterism/testkit/key-service';
import { startKube } from '@asterism/testkit/kube';
import { temporaryFolder } from '@asterism/testkit/temporary-folder';
import { againstEcho } from './against-echo.ts';
import type { Bench, BenchContext, Row } from './bench.ts';
import { motoKms, openBaoKms, type TwoKeks } from './kms.ts';
import { rewrapRows } from './rewrap.ts';

/** Keys of an external KMS: all of them wrapped by another KEK, and one given out from the cache. */
export default {
  name: 'keys',
  async run(context) {
    const [bao, moto] = [await openBaoProgram(), await motoPython()];
    if ('skip' in bao) throw new Error(bao.skip);
    if ('skip' in moto) throw new Error(moto.skip);
    const rows: Row[] = [];
    {
      await using server = await startMoto(moto.program);
      rows.push(...(await rewrapRows(await motoKms(server), context)));
    }
    await using server = await startOpenBao(bao.program);
    const kms = await openBaoKms(server);
    rows.push(...(await rewrapRows(kms, context)));
    rows.push(...(await fromCache(kms, context)));
    return rows;
  },
} satisfies Bench;

async function fromCache({ old }: TwoKeks, context: BenchContext): Promise<Row[]> {
  context.progress('starting a Kubernetes API');
  await using kube = await startKube();
  await using folder = await temporaryFolder();
  const deploy = join(import.meta.dirname, '../deploy');
  for (const name of ['key-service', 'join-service'])
    await kube.apply(await readFile(join(deploy, name, `${name}.yaml`), 'utf8'));
  const homes = new KeyHomes({
    open: async (home) => openKeyHome({ ...home, store: await openFolderStore(folder.file('keys')) }),
    log: console,
  });
  const credentials = { kms: old.credentials, storage: {} };
  await homes.configure({
    homes: [{ kmsUri: old.kmsUri, storageUri: 'storage://kubernetes', credentials }],
  });
  const master = { key: new Uint8Array(32).fill(1), salt: new Uint8Array(32).fill(2) };
  await using external = await startKeyService(kube, homes, folder.file('external.log'));
  await using cluster = await startKeyService(kube, master, folder.file('cluster.log'));
  const services = {
    'GetDataKey, external KMS, from the cache': external.port,
    'GetDataKey, derived': cluster.port,
  };
  return await againstEcho(kube, services, context);
}
