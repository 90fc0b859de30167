// What a cluster goes through with its keys in a KMS of its user's own: it is made, verified, its nodes reboot, keys are
// rotated, all control planes stop. What differs between homes is the section `kms` of the configuration.
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { type ClusterConfig, CONFIG_FILE } from '@asterism/config/cluster-config';
import { kmsSchema } from '@asterism/config/kms-config';
import { STATE_FILE } from '@asterism/config/state';
import type { Workspace } from '@asterism/config/workspace';
import { hostAddressOf, readCluster } from '@asterism/provider-local/cluster';
import {
  assertNodesReady,
  asterism,
  type Cluster,
  configure,
  configuredWorkspace,
  eventually,
  must,
  openCluster,
  type Result,
  removeWorkspace,
  SKIP,
} from '../cluster.ts';
import { INIT_JOURNAL } from '../init-resume/killed-init.ts';
import { type FoundHome, placeIn, type TestHome } from './home.ts';
import { meanwhile } from './meanwhile.ts';
import { assertNoTrace } from './traces.ts';

/** When the KMS is away. */
export type Outage = 'init' | 'rejoin' | 'rotation' | 'recovery';

export interface Life {
  readonly name: string;
  readonly home: FoundHome;
  readonly outages?: readonly Outage[];
  /** Another KMS altogether, to which the cluster moves instead of to another key. */
  readonly next?: FoundHome;
  /** Nodes are recovered while the store does not answer. */
  readonly recoverWithoutStore?: boolean;
}

interface Listed {
  readonly homes: readonly { generation: number; kms: string; storage: string }[];
  readonly disks: readonly { diskUuid: string; instanceName: string; key: string }[];
  readonly storedKeys: readonly { id: string; generation: number; kek: string; error?: string }[];
}

const NODES = 2;
const MINUTE = 60_000;

export function lifeWith({ name, home: found, outages = [], next, recoverWithoutStore = false }: Life): void {
  const missing = [found, next].find((one) => one !== undefined && 'skip' in one);
  describe(`keys in ${name}`, {
    skip: SKIP || (missing as { skip: string } | undefined)?.skip || false,
  }, () => {
    const secrets: string[] = [];
    let workspace: Workspace;
    let cluster: Cluster;
    let home: TestHome;
    let nextHome: TestHome | undefined;

    let failed = false;
    /** Each step needs those before it. */
    const step = (what: string, body: () => Promise<void>) =>
      test(what, async (t) => {
        if (failed) return t.skip('an earlier step failed');
        failed = true;
        await body();
        failed = false;
      });
    const call = (...args: string[]): Promise<Result> =>
      asterism(args, { workspace: workspace.folder, timeoutMs: 12 * MINUTE, show: true });
    const during = (outage: Outage) => outages.includes(outage);
    const useKey = (of: TestHome, key: number) =>
      configure(workspace, (config): ClusterConfig => {
        const store = home.store === undefined ? {} : { store: home.store };
        return { ...config, kms: kmsSchema.parse({ ...of.kms(key), ...store }) };
      });
    const listed = async (): Promise<Listed> => JSON.parse(await must(call('keys', 'list', '-o', 'json')));
    const verified = () => eventually('verify', 2 * MINUTE, () => must(call('verify')));
    const ready = () => eventually('nodes Ready', 5 * MINUTE, () => assertNodesReady(cluster, NODES));
    const workerName = () => cluster.workers[0]!.name;

    /** The kubelet of a node has reported after this moment: it has its disk, and is a member. */
    const assertBack = async (node: string, since: Date) => {
      const path = 'jsonpath={.spec.renewTime}';
      const lease = ['-n', 'kube-node-lease', 'get', 'lease', node, '-o', path, '--request-timeout=10s'];
      const renewed = new Date(await must(cluster.kubectl(lease)));
      assert.ok(renewed > since, `last heard of at ${renewed.toISOString()}`);
      await assertNodesReady(cluster, NODES);
    };
    const back = (node: string, since: Date) =>
      eventually(`${node} is back`, 5 * MINUTE, () => assertBack(node, since));
    const rebooted = async (node: string) => {
      await must(call('local', 'reboot', node));
      await back(node, new Date());
    };
    const keyServicesRestarted = async () => {
      const pods = ['-n', 'kube-system'];
      await must(
        cluster.kubectl([...pods, 'delete', 'pod', '-l', 'app=key-service'], { timeoutMs: 2 * MINUTE }),
      );
      const wait = ['rollout', 'status', 'daemonset/key-service', '--timeout=120s'];
      await must(cluster.kubectl([...pods, ...wait], { timeoutMs: 3 * MINUTE }));
    };

    before(async () => {
      // The host's address in the network of the nodes is known when they are there: until then there are no credentials.
      workspace = await configuredWorkspace(
        `keys-${name.toLowerCase().replaceAll(/[^a-z0-9]+/g, '-')}`,
        { controlPlanes: 1, workers: 1 },
        (config): ClusterConfig => ({
          ...config,
          provider: { local: { ...config.provider.local, egress: true } },
          kms: kmsSchema.parse({
            type: 'vault',
            address: 'https://bao.internal:8200',
            keyName: 'asterism',
            credentials: { token: { file: 'credentials/none' } },
          }),
        }),
      );
      const early = await call('mini', 'up');
      assert.equal(early.status, 1, early.stdout);
      assert.match(early.stderr, /kms\.credentials\.token: .*credentials\/none cannot be read/);
      const host = hostAddressOf(await readCluster((await workspace.requireState()).uid));
      const place = placeIn(workspace.folder, host, secrets);
      home = await (found as { start: (at: typeof place) => Promise<TestHome> }).start(place);
      if (next !== undefined && 'start' in next) nextHome = await next.start(place);
      await useKey(home, 1);
    });
    after(async () => {
      if (workspace !== undefined) await removeWorkspace(workspace);
      await home?.[Symbol.asyncDispose]();
      await nextHome?.[Symbol.asyncDispose]();
    });

    if (during('init')) {
      step('an init without the KMS says so, and goes on when it is there', async () => {
        await home.stop();
        const { status, stderr } = await call('mini', 'up');
        assert.notEqual(status, 0);
        assert.match(stderr, /ERR_KMS_UNAVAILABLE/);
        await home.start();
        // And once more: the first keys are wrapped, and the KeyService does not run yet. The worker waits for it.
        const [first] = (await workspace.requireState()).nodes.filter(({ role }) => role === 'ControlPlane');
        const journal = ['local', 'exec', first!.name, '--', 'grep', '-q', 'disk-rekey', INIT_JOURNAL];
        const rekeyed = async () =>
          (await asterism(journal, { workspace: workspace.folder, timeoutMs: MINUTE })).status === 0;
        let started: Promise<void> | undefined;
        await meanwhile(call('mini', 'up'), rekeyed, async () => {
          await home.stop();
          started = sleep(90_000).then(() => home.start());
        });
        await started;
      });
    }

    step('a cluster is made with it, and verifies', async () => {
      await must(call('mini', 'up'));
      cluster = await openCluster(workspace.folder);
      await ready();
      await verified();
    });

    step('its keys are stored, wrapped by the first key', async () => {
      const { homes, disks, storedKeys } = await listed();
      assert.deepEqual(
        homes.map(({ generation }) => generation),
        [1],
      );
      assert.deepEqual(disks.map(({ instanceName, key }) => [instanceName, key]).sort(), [
        [cluster.controlPlanes[0]!.name, '1.0'],
        [workerName(), '1.0'],
      ]);
      assert.equal(storedKeys.length, 3, JSON.stringify(storedKeys));
      for (const part of ['measurementSecret', ...disks.map(({ diskUuid }) => diskUuid)])
        assert.ok(
          storedKeys.some(({ id, generation, error }) => id.includes(part) && generation === 1 && !error),
          `${part}: ${JSON.stringify(storedKeys)}`,
        );
    });

    step('a worker that reboots joins again by itself', async () => {
      if (!during('rejoin')) return rebooted(workerName());
      await home.stop();
      // The KeyService has the keys in memory.
      await rebooted(workerName());
      await home.start();
      await keyServicesRestarted();
      await home.stop();
      // Now it has not: the node asks until the KMS is there again.
      await must(call('local', 'reboot', workerName()));
      const since = new Date();
      await sleep(45_000);
      await assert.rejects(assertBack(workerName(), since));
      await home.start();
      await back(workerName(), new Date());
    });

    step('keys of disks are changed', async () => {
      await must(call('keys', 'rotate', 'disk', '--all'));
      for (const { key } of (await listed()).disks) assert.equal(key, '1.1');
    });

    step(next === undefined ? 'another key of the KMS takes over' : 'another KMS takes over', async () => {
      const former = (await listed()).storedKeys;
      await useKey(nextHome ?? home, 2);
      if (during('rotation')) {
        const begun = async () => (await workspace.requireState()).nextKeyHome !== undefined;
        const { status, stderr } = await meanwhile(call('keys', 'rotate', 'kek'), begun, () => home.stop());
        assert.notEqual(status, 0);
        assert.match(stderr, /ERR_KEY_SERVICES_BEHIND|ERR_KMS_UNAVAILABLE/);
        await home.start();
      }
      await must(call('keys', 'rotate', 'kek'));
      const { homes, storedKeys } = await listed();
      assert.deepEqual(
        homes.map(({ generation }) => generation),
        [2],
      );
      for (const { id, generation, kek } of storedKeys) {
        assert.equal(generation, 2, id);
        assert.ok(!former.some((one) => one.kek === kek), `${id} is wrapped by ${kek}`);
      }
    });

    step('the former key is of no use any more: nodes join without it', async () => {
      await home.giveUp(1);
      await keyServicesRestarted();
      await rebooted(workerName());
    });

    step('nodes are recovered after all control planes stopped', async () => {
      for (const verb of ['stop', 'start'])
        for (const node of cluster.controlPlanes) await must(call('local', verb, node.name));
      const used = nextHome ?? home;
      if (during('recovery')) {
        await used.stop();
        const { status, stderr } = await call('recover');
        assert.equal(status, 4, stderr);
        assert.match(stderr, /ERR_KMS_UNAVAILABLE/);
        await used.start();
      }
      if (recoverWithoutStore) await home.stopStore!();
      const started = new Date();
      await must(call('recover'));
      for (const node of [...cluster.controlPlanes, ...cluster.workers]) await back(node.name, started);
      if (recoverWithoutStore) await home.startStore!();
      await verified();
    });

    step('who got which key is on record, and the record is whole', async () => {
      const { logs, lines } = JSON.parse(await must(call('keys', 'audit', '-o', 'json')));
      assert.ok(logs.length > 0);
      for (const log of logs) assert.equal(log.error, undefined);
      assert.ok(lines.some((line: { outcome: string }) => line.outcome === 'granted'));
    });

    step('no credential is written down anywhere', async () => {
      assert.ok(secrets.length > 0);
      const check = async (where: string, text: string | Promise<string>) =>
        assertNoTrace(where, await text, secrets);
      const { folder } = workspace;
      await check('keys list', must(call('keys', 'list')));
      for (const file of [STATE_FILE, CONFIG_FILE]) await check(file, readFile(workspace.path(file), 'utf8'));
      const quiet = { workspace: folder, timeoutMs: 2 * MINUTE };
      for (const { name: node } of [...cluster.controlPlanes, ...cluster.workers]) {
        const inNode = (script: string) =>
          must(asterism(['local', 'exec', node, '--', 'sh', '-c', script], quiet));
        await check(
          `processes of ${node}`,
          inNode("cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n'; :"),
        );
        await check(`journal of ${node}`, must(asterism(['local', 'logs', node], quiet)));
        await check(`logs of pods of ${node}`, inNode("find /var/log/pods -name '*.log' -exec cat {} +"));
      }
      for (const kind of ['configmaps', 'pods', 'events', 'daemonsets'])
        await check(kind, must(cluster.kubectl(['get', kind, '-A', '-o', 'yaml'], { timeoutMs: MINUTE })));
    });
  });
}
