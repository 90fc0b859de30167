import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { startKeyService } from '@asterism/testkit/key-service';
import { startKube } from '@asterism/testkit/kube';
import { temporaryFolder } from '@asterism/testkit/temporary-folder';
import { againstEcho } from './against-echo.ts';
import type { Bench } from './bench.ts';

/** GetDataKey of a cluster whose keys are derived. */
export default {
  name: 'key-service',
  async run(context) {
    context.progress('starting a Kubernetes API');
    await using kube = await startKube();
    await using folder = await temporaryFolder();
    const deploy = join(import.meta.dirname, '../deploy');
    for (const name of ['key-service', 'join-service'])
      await kube.apply(await readFile(join(deploy, name, `${name}.yaml`), 'utf8'));
    const master = { key: new Uint8Array(32).fill(1), salt: new Uint8Array(32).fill(2) };
    await using service = await startKeyService(kube, master, folder.file('audit.log'));
    return await againstEcho(kube, { GetDataKey: service.port }, context);
  },
} satisfies Bench;
