import { request } from 'node:http';
import { ParseError, UnreachableError } from '@asterism/errors/errors';
import { boundedText } from '@asterism/runtime/bounded-text';
import { z } from 'zod';
import type { InstanceMetadata, Metadata, Role } from './types.ts';

const MAX_ANSWER = 1 << 20;
const TIMEOUT_MS = 10_000;

const instance = z.object({
  Name: z.string().min(1).max(253),
  ProviderID: z.string().max(1024),
  Role: z.string().max(40),
  VPCIP: z.union([z.literal(''), z.ipv4()]),
  SecondaryIPRange: z.string().max(64).nullish(),
  AliasIPRanges: z.array(z.string().max(64)).max(64).nullish(),
});

const endpoint = z.string().regex(/^[a-zA-Z0-9.-]{1,253}(:[0-9]{1,5})?$/);
const bcryptHash = z.string().regex(/^\$2[aby]\$[0-9]{2}\$[./A-Za-z0-9]{1,53}$/);

/**
 * Metadata over HTTP: wire-facts 2.10. Every call ends within 10 s, whatever the server does.
 * @param address `unix:/path` (a local node's own socket) or `http://host:port`
 */
export function httpMetadata(address: string): Metadata & { log(line: string): Promise<void> } {
  const target = address.startsWith('unix:')
    ? { socketPath: address.slice('unix:'.length) }
    : { host: new URL(address).hostname.replace(/^\[|\]$/g, ''), port: new URL(address).port || '80' };

  function call(method: string, path: string, body?: string, signal?: AbortSignal): Promise<string> {
    return new Promise((resolve, reject) => {
      const fail = (cause: Error): void =>
        reject(new UnreachableError(`metadata ${path}: ${cause.message}`, { cause }));
      const deadline = AbortSignal.timeout(TIMEOUT_MS);
      const outgoing = request(
        {
          ...target,
          method,
          path,
          signal: signal === undefined ? deadline : AbortSignal.any([signal, deadline]),
        },
        (response) => {
          boundedText(response, MAX_ANSWER).then((text) => {
            if (response.statusCode !== undefined && response.statusCode < 300) resolve(text);
            else fail(new Error(`HTTP status ${response.statusCode}`));
          }, fail);
        },
      );
      outgoing.on('error', fail);
      outgoing.end(body);
    });
  }

  return {
    self: async (signal) => parse(instance, await call('GET', '/self', undefined, signal), toInstance),
    list: async (signal) =>
      parse(z.array(instance).max(10_000), await call('GET', '/peers', undefined, signal), (peers) =>
        peers.map(toInstance),
      ),
    loadBalancerEndpoint: async (signal) =>
      parse(endpoint, await call('GET', '/endpoint', undefined, signal), (text) => text),
    initSecretHash: async (signal) => {
      const hash = bcryptHash.safeParse((await call('GET', '/initsecrethash', undefined, signal)).trim());
      if (hash.success) return hash.data;
      throw new ParseError(
        'the metadata service gave something else than the bcrypt hash of the init secret',
      );
    },
    log: async (line) => {
      await call('POST', '/log', line);
    },
  };
}

function parse<T, R>(schema: z.ZodType<T>, text: string, use: (value: T) => R): R {
  try {
    return use(schema.parse(JSON.parse(text)));
  } catch (cause) {
    throw new ParseError('the metadata service gave an answer that cannot be read', { cause });
  }
}

function toInstance(raw: z.infer<typeof instance>): InstanceMetadata {
  return {
    name: raw.Name,
    providerId: raw.ProviderID,
    role: toRole(raw.Role),
    vpcIp: raw.VPCIP === '' ? undefined : raw.VPCIP,
    secondaryIpRange: raw.SecondaryIPRange ?? '',
    aliasIpRanges: raw.AliasIPRanges ?? [],
  };
}

function toRole(text: string): Role {
  const role = text.toLowerCase();
  if (role === 'controlplane' || role === 'control-plane') return 'ControlPlane';
  return role === 'worker' ? 'Worker' : 'Unknown';
}
