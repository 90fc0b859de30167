import { createHash, randomBytes } from 'node:crypto';
import { mkdtemp, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { fromHex } from '@asterism/bytes/encoding';
import { clusterId } from '@asterism/crypto/derive';
import { stateLayout } from '@asterism/disk/layout';
import { StateDisk } from '@asterism/disk/state-disk';
import { ParseError } from '@asterism/errors/errors';
import { clusterHome } from '@asterism/kms/open';
import type { KeyHome } from '@asterism/kms/types';
import type { Component } from '@asterism/kubernetes/install';
import type { InstanceMetadata, Metadata } from '@asterism/metadata/types';
import type { MachineTpm } from '@asterism/runtime/machine-tpm';
import type { InitMachine, Keys } from './init-phases.ts';

import type { KubernetesNode, Manifest } from './kubernetes-node.ts';

// Parts for tests of this service and of the join: the disk is a real LUKS2 image, the rest stands in for programs.

/** PCRs in memory; extended as a TPM does. */
export class MemoryTpm implements MachineTpm {
  readonly pcrs = new Map<number, Uint8Array>();
  constructor() {
    for (let index = 0; index < 24; index++)
      this.pcrs.set(index, new Uint8Array(32).fill(index === 15 ? 0 : index));
  }
  async readPcrs(): Promise<ReadonlyMap<number, Uint8Array>> {
    return new Map(this.pcrs);
  }
  async extendClusterId(id: Uint8Array): Promise<void> {
    const event = createHash('sha256').update(id).digest();
    const next = createHash('sha256').update(this.pcrs.get(15)!).update(event).digest();
    this.pcrs.set(15, new Uint8Array(next));
  }
  async attestationKeyId(): Promise<string> {
    return 'ab'.repeat(32);
  }
}

/** Writes down what it is asked to do. */
export class RecordingNode implements KubernetesNode {
  readonly steps: string[] = [];
  readonly applied: string[] = [];
  readonly files = new Map<string, string>();
  /** Called at each step; may throw or wait. */
  hook: (step: string) => Promise<void> = async () => {};

  async #step(step: string): Promise<void> {
    this.steps.push(step);
    await this.hook(step);
  }
  installComponents(components: readonly Component[]): Promise<void> {
    return this.#step(`install ${components.length}`);
  }
  startContainerd(): Promise<void> {
    return this.#step('containerd');
  }
  importImages(): Promise<void> {
    return this.#step('images');
  }
  async writeFile(path: string, content: string): Promise<void> {
    this.files.set(path, content);
    await this.#step(`write ${path}`);
  }
  async hasFile(path: string): Promise<boolean> {
    return this.files.has(path);
  }
  async removeFiles(paths: readonly string[]): Promise<void> {
    for (const path of paths) this.files.delete(path);
  }
  waitForFile(path: string): Promise<void> {
    return this.#step(`wait for ${path}`);
  }
  async kubeadm(args: readonly string[]): Promise<string> {
    await this.#step(`kubeadm ${args.filter((arg) => !arg.startsWith('-')).join(' ')}`);
    return args[0] === 'kubeconfig' ? 'apiVersion: v1\nkind: Config\n' : '';
  }
  signKubeletCertificate(): Promise<void> {
    return this.#step('kubelet certificate');
  }
  startKubelet(): Promise<void> {
    return this.#step('kubelet');
  }
  waitForApi(_signal: AbortSignal, host?: string): Promise<void> {
    return this.#step(host === undefined ? 'api' : `api of ${host}`);
  }
  async apply(objects: string): Promise<void> {
    this.applied.push(objects);
    await this.#step('apply');
  }
  async manifests(): Promise<readonly Manifest[]> {
    return [
      { name: '10-flannel.yaml', kind: 'network', yaml: 'network' },
      { name: '50-join-service.yaml', kind: 'service', yaml: 'service' },
    ];
  }
  waitForDaemonSets(): Promise<void> {
    return this.#step('daemonsets');
  }
  waitForNode(): Promise<void> {
    return this.#step('node');
  }
}

/** Keys of a cluster KMS whose URI is kms://cluster-kms?key=<hex>. */
export const testKeys: Keys = {
  async open({ kmsUri }): Promise<KeyHome> {
    const match = /^kms:\/\/cluster-kms\?key=([0-9a-f]{64})$/.exec(kmsUri);
    if (match === null) throw new ParseError('not a KMS URI of this test');
    return clusterHome({ key: fromHex(match[1]!), salt: new Uint8Array(32).fill(1) });
  },
  storedKeys: async () => [],
  forget: async () => {},
  clusterId: async (secret, salt) => clusterId(secret, salt),
};

export const instance = (name: string, vpcIp: string, role: InstanceMetadata['role']): InstanceMetadata => ({
  name,
  providerId: `local:///${name}`,
  role,
  vpcIp,
  secondaryIpRange: '',
  aliasIpRanges: [],
});

export function testMetadata(self: InstanceMetadata, others: readonly InstanceMetadata[] = []): Metadata {
  return {
    self: async () => self,
    list: async () => [self, ...others],
    loadBalancerEndpoint: async () => '10.77.1.1',
    initSecretHash: async () => '',
  };
}

export interface TestMachine {
  readonly folder: string;
  readonly tpm: MemoryTpm;
  readonly node: RecordingNode;
  readonly machine: InitMachine;
  readonly temporaryKey: Uint8Array;
  remove(): Promise<void>;
}

/** A machine whose state disk was just formatted by a disk-mapper. */
export async function makeTestMachine(): Promise<TestMachine> {
  const folder = await mkdtemp(`${tmpdir()}/asterism-node-`);
  const device = `${folder}/disk.img`;
  await writeFile(device, '');
  await truncate(device, 32 * 1024 * 1024);
  const disk = new StateDisk({ device, mappable: false, scratch: `${folder}/scratch` });
  const temporaryKey = Uint8Array.from(randomBytes(32));
  await disk.format(temporaryKey);
  const temporaryKeyFile = `${folder}/state.key`;
  await writeFile(temporaryKeyFile, temporaryKey, { mode: 0o400 });
  const tpm = new MemoryTpm();
  const node = new RecordingNode();
  const machine: InitMachine = {
    tpm,
    disk,
    node,
    layout: stateLayout(`${folder}/state`),
    attestationVariant: 'fake',
    temporaryKeyFile,
  };
  const remove = (): Promise<void> => rm(folder, { recursive: true, force: true });
  return { folder, tpm, node, machine, temporaryKey, remove };
}
