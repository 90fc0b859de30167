import type { StateLayout } from '@asterism/disk/layout';
import { AsterismError } from '@asterism/errors/errors';
import type { Metadata } from '@asterism/metadata/types';
import { CLUSTER_ID_PCR, type MachineTpm } from '@asterism/runtime/machine-tpm';
import type { NodePhase } from './health.ts';
import { settleInitPlace } from './init-place.ts';
import type { InitEnd } from './init-server.ts';
import type { JoinClient } from './join-client.ts';
import type { KubernetesNode } from './kubernetes-node.ts';
import type { NodeLock } from './node-lock.ts';
import { decideStart, type Start } from './start.ts';

export interface LifeParts {
  readonly tpm: MachineTpm;
  readonly layout: StateLayout;
  readonly node: Pick<KubernetesNode, 'startContainerd' | 'startKubelet'>;
  readonly metadata: Pick<Metadata, 'self' | 'list'>;
  readonly joining: Pick<JoinClient, 'run' | 'resume'>;
  readonly lock: NodeLock;
  readonly log: { info(fields: object, message: string): void };
  readonly onPhase: (phase: NodePhase) => void;
  readonly onStart: (start: Start['kind']) => Promise<void>;
  serveInit(
    options: { readonly leftMs?: number; readonly onEnded: () => void },
    until: AbortSignal,
  ): Promise<InitEnd>;
}

/**
 * What a bootstrapper does from its start on.
 * @returns when this node is a member and nobody needs the bootstrapper any more
 * @throws whatever `stop` aborts with, when it aborts before that
 */
export async function live(parts: LifeParts, stop: AbortSignal): Promise<void> {
  const pcr = (await parts.tpm.readPcrs()).get(CLUSTER_ID_PCR);
  if (pcr === undefined) throw new AsterismError('ERR_TPM_PCR', 'the TPM has no SHA-256 bank with PCR 15');
  const start = await decideStart(pcr, parts.layout);
  await parts.onStart(start.kind);
  await become(parts, start, stop);
  parts.onPhase('member');
}

async function become(parts: LifeParts, start: Start, stop: AbortSignal): Promise<void> {
  const { lock, joining, onPhase } = parts;
  switch (start.kind) {
    case 'member':
      return startAsMember(parts, stop);
    case 'resume-join':
      onPhase('joining');
      await joining.resume(start.journal, stop);
      return startAsMember(parts, stop);
    case 'deliver-init':
      await startAsMember(parts, stop);
      onPhase('delivering');
      await parts.serveInit({ leftMs: start.leftMs, onEnded: () => {} }, stop);
      return stop.throwIfAborted();
    case 'resume-init':
      onPhase('waiting');
      lock.onTaken(() => onPhase('initialising'));
      await parts.serveInit({ onEnded: () => onPhase('delivering') }, stop);
      return stop.throwIfAborted();
    case 'fresh':
      return activate(parts, stop);
  }
}

/** Offers an init where this machine takes it, and asks for a ticket; whichever comes first. */
async function activate(parts: LifeParts, stop: AbortSignal): Promise<void> {
  const { lock, joining, onPhase } = parts;
  onPhase('waiting');
  const ended = new AbortController();
  const noMoreInit = new AbortController();
  lock.onTaken((by) => {
    onPhase(by === 'init' ? 'initialising' : 'joining');
    if (by === 'join') noMoreInit.abort(new Error('this machine joins a cluster'));
  });
  const until = AbortSignal.any([stop, ended.signal]);
  const join = joining.run(until);
  const init = offerInit(parts, AbortSignal.any([until, noMoreInit.signal]));
  try {
    // An init server that has nothing more to serve says nothing of how this ends.
    await Promise.race([join, init.then((end) => (end === 'confirmed' || end === 'expired' ? end : join))]);
  } finally {
    ended.abort();
    await Promise.allSettled([join, init]);
  }
  stop.throwIfAborted();
}

async function offerInit(parts: LifeParts, until: AbortSignal): Promise<InitEnd> {
  try {
    const found = await settleInitPlace({ metadata: parts.metadata, log: parts.log, signal: until });
    if (found.place === 'elsewhere') {
      parts.log.info({ why: found.why }, 'this machine does not take an init; it joins');
      return 'elsewhere';
    }
  } catch (error) {
    if (until.aborted) return 'stopped';
    throw error;
  }
  return parts.serveInit({ onEnded: () => parts.onPhase('delivering') }, until);
}

async function startAsMember({ node, log }: LifeParts, stop: AbortSignal): Promise<void> {
  await node.startContainerd(stop);
  await node.startKubelet(stop);
  log.info({}, 'this node is a member; containerd and the kubelet run');
}
