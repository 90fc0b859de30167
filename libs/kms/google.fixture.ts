import { generateKeyPairSync } from 'node:crypto';
import { inspect } from 'node:util';
import {
  type ScriptedAnswer,
  type ScriptedHttp,
  type SeenRequest,
  scriptedHttp,
} from '@asterism/testkit/scripted-http';

export const TOKEN = 'ya29.this-token-must-never-be-printed';

const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });

/** A server that gives a token to anyone, and to everything else answers as a test wants. */
export interface HostileGoogle extends ScriptedHttp {
  /** `METHOD /path` of everything but tokens. */
  calls(): string[];
  /** With this server as token_uri. */
  readonly serviceAccountKey: string;
}

type Script = (request: SeenRequest) => ScriptedAnswer;

export async function hostileGoogle(
  script: Script,
  token: Script = () => answer(200, { access_token: TOKEN, expires_in: 3600, token_type: 'Bearer' }),
): Promise<HostileGoogle> {
  const server = await scriptedHttp((request) => (request.path === '/token' ? token : script)(request));
  return {
    ...server,
    calls: () =>
      server.requests.filter(({ path }) => path !== '/token').map(({ method, path }) => `${method} ${path}`),
    serviceAccountKey: serviceAccountKey({ token_uri: `${server.endpoint}/token` }),
  };
}

export function serviceAccountKey(change: Readonly<Record<string, unknown>>): string {
  return JSON.stringify({
    type: 'service_account',
    private_key_id: 'f00d',
    private_key: privateKey.export({ type: 'pkcs8', format: 'pem' }),
    client_email: 'keys@project.iam.gserviceaccount.com',
    token_uri: 'https://oauth2.googleapis.com/token',
    ...change,
  });
}

export function answer(status: number, body: unknown, headers: Readonly<Record<string, string>> = {}) {
  return { status, headers, body: typeof body === 'string' ? body : JSON.stringify(body) };
}

/** As Google words an error. */
export function refusal(code: number, status: string, message = '') {
  return answer(code, { error: { code, message, status } });
}

/** Everything that a log could print of an error, with its causes. */
export function printed(error: unknown): string {
  return inspect(error, { depth: 20, showHidden: true });
}
