import { openBaoProgram, startOpenBao } from '@asterism/testkit/counterparts/openbao';
import type { FoundHome, Place, TestHome } from './home.ts';

/** OpenBao; keys `asterism-1` and on, an AppRole that may use them. */
export async function vaultHome(): Promise<FoundHome> {
  const found = await openBaoProgram();
  if ('skip' in found) return found;
  return { start: (place) => startVaultHome(found.program, place) };
}

const KEYS = [1, 2];
const nameOf = (key: number): string => `asterism-${key}`;

async function startVaultHome(program: string, place: Place): Promise<TestHome> {
  const bao = await startOpenBao(program, { host: place.host });
  for (const key of KEYS) await bao.admin('POST', `transit/keys/${nameOf(key)}`, { type: 'aes256-gcm96' });
  const policy = KEYS.map(
    (key) =>
      `path "transit/keys/${nameOf(key)}" { capabilities = ["read"] }
       path "transit/encrypt/${nameOf(key)}" { capabilities = ["update"] }
       path "transit/decrypt/${nameOf(key)}" { capabilities = ["update"] }`,
  ).join('\n');
  await bao.admin('PUT', 'sys/policies/acl/asterism', { policy });
  await bao.admin('POST', 'auth/approle/role/asterism', {
    token_policies: 'asterism',
    token_ttl: '20m',
    secret_id_num_uses: 0,
  });
  const roleId = await bao.admin('GET', 'auth/approle/role/asterism/role-id');
  const secretId = await bao.admin('POST', 'auth/approle/role/asterism/secret-id');
  const credentials = {
    roleID: await place.file('vault-role-id', String((roleId.data as { role_id: string }).role_id)),
    secretID: await place.secret(
      'vault-secret-id',
      String((secretId.data as { secret_id: string }).secret_id),
    ),
    caCertificate: await place.file('vault-ca.pem', bao.ca),
  };
  return {
    kms: (key) => ({ type: 'vault', address: bao.address, keyName: nameOf(key), credentials }),
    giveUp: async (key) => {
      await bao.admin('POST', `transit/keys/${nameOf(key)}/config`, { deletion_allowed: true });
      await bao.admin('DELETE', `transit/keys/${nameOf(key)}`);
    },
    stop: () => bao.kill(),
    start: () => bao.start(),
    [Symbol.asyncDispose]: () => bao[Symbol.asyncDispose](),
  };
}
