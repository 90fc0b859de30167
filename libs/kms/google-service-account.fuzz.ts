import { fromUtf8, toUtf8 } from '@asterism/bytes/encoding';
import { parseServiceAccountKey } from './google-service-account.ts';

export const name = 'kms/google-service-account';

const PEM = '-----BEGIN PRIVATE KEY-----\nMIIEvQ==\n-----END PRIVATE KEY-----\n';

export const seeds = ['https://oauth2.googleapis.com/token', 'http://127.0.0.1:8080/token'].map((uri) =>
  toUtf8(
    JSON.stringify({
      type: 'service_account',
      project_id: 'project',
      private_key_id: '0123',
      private_key: PEM,
      client_email: 'keys@project.iam.gserviceaccount.com',
      token_uri: uri,
    }),
  ),
);

/** What is accepted asks for tokens over https, or on this machine. */
export function run(input: Uint8Array): void {
  const { tokenUri } = parseServiceAccountKey(fromUtf8(input));
  const { protocol, hostname } = new URL(tokenUri);
  if (protocol !== 'https:' && !/^(127\.|localhost$|\[::1\]$)/.test(hostname)) throw new Error(hostname);
}
