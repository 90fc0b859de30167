import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

/** A KMS with several keys, and a store, on the host of a local cluster. */
export interface TestHome extends AsyncDisposable {
  /** The section `kms` of the configuration for one of its keys, without the store. */
  kms(key: number): object;
  /** The section `kms.store`; undefined: the cluster's own Secrets. */
  readonly store?: object;
  /** From now on this key unwraps nothing more, at the KMS itself. */
  giveUp(key: number): Promise<void>;
  /** The KMS does not answer any more. */
  stop(): Promise<void>;
  /** After {@link stop}. */
  start(): Promise<void>;
  /** The store does not answer any more. */
  stopStore?(): Promise<void>;
  startStore?(): Promise<void>;
}

/** Where the servers of a home listen, and where what they know callers by is kept. */
export interface Place {
  /** The host's address as nodes see it. */
  readonly host: string;
  /** A credential as the configuration takes it. */
  file(name: string, text: string): Promise<{ file: string }>;
  /** The same, of what nobody else may ever see. */
  secret(name: string, text: string): Promise<{ file: string }>;
}

/** @param secrets gets everything that is secret */
export function placeIn(workspace: string, host: string, secrets: string[]): Place {
  const file = async (name: string, text: string) => {
    await mkdir(join(workspace, 'credentials'), { recursive: true, mode: 0o700 });
    await writeFile(join(workspace, 'credentials', name), text, { mode: 0o600 });
    return { file: `credentials/${name}` };
  };
  return {
    host,
    file,
    secret: (name, text) => {
      secrets.push(text);
      return file(name, text);
    },
  };
}

export type StartHome = (place: Place) => Promise<TestHome>;

/** How to start a home, or why it cannot be started on this machine. */
export type FoundHome = { readonly start: StartHome } | { readonly skip: string };

/** Disposes of all, the last one first. */
export async function disposeAll(parts: readonly AsyncDisposable[]): Promise<void> {
  for (const part of parts.toReversed()) await part[Symbol.asyncDispose]();
}
