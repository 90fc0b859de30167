import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { test } from 'node:test';
import { runChecked } from '@asterism/runtime/program';
import { openBaoProgram, startOpenBao } from '@asterism/testkit/counterparts/openbao';
import { documentedCommands } from '@asterism/testkit/documented-commands';
import { temporaryFolder } from '@asterism/testkit/temporary-folder';
import { open } from './backend.ts';

const found = await openBaoProgram();

test('the commands of docs/keys/vault.md make a key that works', {
  skip: 'skip' in found && found.skip,
}, async () => {
  assert.ok('program' in found);
  await using bao = await startOpenBao(found.program, { bare: true });
  await using folder = await temporaryFolder();
  await writeFile(folder.file('ca.pem'), bao.ca);
  const env = {
    PATH: `${dirname(found.program)}:${process.env.PATH}`,
    HOME: folder.path,
    BAO_ADDR: bao.address,
    BAO_CACERT: folder.file('ca.pem'),
    BAO_TOKEN: bao.rootToken,
  };
  for (const block of await documentedCommands('keys/vault.md'))
    await runChecked('sh', ['-euc', block], { timeoutMs: 60_000, cwd: folder.path, env });
  const kek = await open({
    parameters: { address: bao.address, keyName: 'asterism' },
    credentials: {
      roleID: await readFile(folder.file('asterism-role-id'), 'utf8'),
      secretID: await readFile(folder.file('asterism-secret-id'), 'utf8'),
      caCertificate: bao.ca,
    },
  });
  try {
    const key = randomBytes(32);
    const wrapped = await kek.wrap(key, 'context');
    assert.deepEqual(Buffer.from(await kek.unwrap(wrapped, 'context')), key);
    await bao.admin('POST', 'transit/keys/asterism/config', { deletion_allowed: true });
    await bao.admin('DELETE', 'transit/keys/asterism');
    // As the page says: a policy without `create` makes no key.
    await assert.rejects(kek.wrap(key, 'context'), { code: 'ERR_KMS_DENIED' });
  } finally {
    await kek.close();
  }
});
