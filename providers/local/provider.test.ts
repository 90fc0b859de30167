import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { toHex } from '@asterism/bytes/encoding';
import { parseEventLog, replay, SHA256 } from '@asterism/eventlog/event-log';
import { type BuiltImage, latestImage } from '@asterism/image/build';
import { DEFAULT_VERSION } from '@asterism/kubernetes/components/catalogue';
import { httpMetadata } from '@asterism/metadata/http-metadata';
import { withTpm } from '@asterism/tpm/with-tpm';
import { clusterFolder, gatewayOf, type LocalCluster, nodeRuntime } from './cluster.ts';
import { execInNode } from './exec.ts';
import { host } from './host.ts';
import {
  createLocalCluster,
  removeLocalCluster,
  startLocalNode,
  statusOfLocalCluster,
  stopLocalNode,
} from './provider.ts';
import { stopSupervisor } from './supervisor.ts';
import { tpmAddress } from './tpm.ts';

const skip =
  process.getuid?.() === 0 ? false : 'needs root: nodes have namespaces, cgroups and mounts of their own';
const options = { signal: AbortSignal.timeout(280_000), onDetail: () => {} };
const newUid = () => randomBytes(4).toString('hex');
const PCRS = [4, 8, 9, 11, 12, 13, 15];

describe('provider local', { skip }, () => {
  let image: BuiltImage;
  let cluster: LocalCluster;
  const spec = (uid: string, controlPlaneNodes: number, workerNodes: number) => ({
    name: 'test',
    uid,
    image: image.reference,
    kubernetesVersion: DEFAULT_VERSION,
    controlPlaneNodes,
    workerNodes,
    stateDiskMiB: 64,
    initSecretHash: '$2b$10$0123456789012345678901',
  });
  const inNode = async (name: string, ...argv: string[]) => {
    let output = '';
    const collect = (chunk: Buffer) => {
      output += chunk;
    };
    const code = await execInNode(cluster.uid, name, argv, {
      signal: AbortSignal.timeout(30_000),
      stdio: 'pipe',
      onOutput: collect,
    });
    return { code, output };
  };
  const pcrsOf = (uid: string, node: string) => withTpm(tpmAddress(uid, node), (tpm) => tpm.readPcrs(PCRS));

  before(async () => {
    const found = await latestImage();
    assert.ok(found, 'no node image; run: ./asterism image build');
    image = found;
    cluster = await createLocalCluster(spec(newUid(), 1, 1), options);
  });
  after(async () => {
    if (cluster !== undefined) await removeLocalCluster(cluster.uid, options);
  });

  it('boots nodes whose PCRs are the ones predicted from the files, with an event log that leads there', async () => {
    for (const { name } of cluster.nodes) {
      const pcrs = await pcrsOf(cluster.uid, name);
      for (const [index, { expected }] of image.measurements)
        assert.equal(toHex(pcrs.get(index)!), toHex(expected), `${name} PCR ${index}`);
      const log = parseEventLog(await readFile(join(nodeRuntime(cluster.uid, name), 'event-log.bin')));
      for (const [index, value] of await replay(log, SHA256))
        assert.equal(toHex(value), toHex(pcrs.get(index)!));
    }
  });

  it('runs systemd as the first process, in its own namespaces and cgroups', async () => {
    const { output } = await inNode(
      'worker-0',
      'sh',
      '-c',
      'hostname; cat /proc/1/comm; ls /sys/fs/cgroup/systemd 2>/dev/null | head -0; ps ax | wc -l',
    );
    assert.match(output, /^worker-0\nsystemd\n/);
    const processes = Number(output.trim().split('\n').at(-1));
    assert.ok(processes < 60, `${processes} processes are seen in the node`);
  });

  it('tells each node who it is, on a socket that no other node has', async () => {
    for (const node of cluster.nodes) {
      const metadata = httpMetadata(`unix:${join(nodeRuntime(cluster.uid, node.name), 'metadata.sock')}`);
      const self = await metadata.self();
      assert.equal(self.name, node.name);
      assert.equal(self.role, node.role);
      assert.equal(self.vpcIp, node.address);
      assert.equal((await metadata.list()).length, 2);
      assert.equal(await metadata.loadBalancerEndpoint(), gatewayOf(cluster));
      const { output } = await inNode(
        node.name,
        'sh',
        '-c',
        'find / -xdev -name "*.sock" -path "*asterism*" 2>/dev/null; ls /run/asterism',
      );
      assert.match(output, /metadata\.sock/);
      assert.doesNotMatch(output, /tpm-control|\.ctrl/);
    }
  });

  it('drops packets with the address of another node', async () => {
    const [one, two] = cluster.nodes;
    const bash = (script: string) => inNode('worker-0', 'timeout', '3', 'bash', '-c', script);
    const reach = async () =>
      (await bash(`exec 3<>/dev/tcp/${gatewayOf(cluster)}/8080 && echo connected`)).output;
    // The kernel takes the source address from the route.
    const speakAs = (address: string) =>
      bash(`ip route replace default via 169.254.77.1 dev eth0 src ${address}`);
    assert.match(await reach(), /connected/);
    await bash(`ip addr add ${one!.address}/32 dev eth0`);
    await speakAs(one!.address);
    assert.doesNotMatch(await reach(), /connected/);
    await speakAs(two!.address);
    await bash(`ip addr del ${one!.address}/32 dev eth0`);
    assert.match(await reach(), /connected/);
  });

  it('resets PCRs at a reboot and keeps the state', async () => {
    await inNode('worker-0', 'sh', '-c', 'echo kept > /run/state/kept; echo lost > /lost');
    await withTpm(tpmAddress(cluster.uid, 'worker-0'), (tpm) => tpm.eventPcr(15, randomBytes(32)));
    await stopLocalNode(cluster.uid, 'worker-0');
    assert.deepEqual(
      (await statusOfLocalCluster(cluster.uid)).map(({ running }) => running),
      [true, false],
    );
    await assert.rejects(inNode('worker-0', 'true'), { code: 'ERR_NODE_STOPPED' });
    await startLocalNode(cluster.uid, 'worker-0');
    const pcrs = await pcrsOf(cluster.uid, 'worker-0');
    assert.equal(toHex(pcrs.get(15)!), '00'.repeat(32));
    const { output } = await inNode('worker-0', 'sh', '-c', 'cat /run/state/kept; ls /lost');
    assert.match(output, /^kept/);
    assert.match(output, /No such file/);
  });

  it('survives its supervisor: nodes run on, and a new one serves again', async () => {
    await stopSupervisor(cluster.uid);
    assert.ok((await statusOfLocalCluster(cluster.uid)).every(({ running }) => running));
    await startLocalNode(cluster.uid, 'worker-0');
    const metadata = httpMetadata(`unix:${join(nodeRuntime(cluster.uid, 'worker-0'), 'metadata.sock')}`);
    assert.equal((await metadata.self()).name, 'worker-0');
  });

  it('keeps a second cluster beside the first apart from it', async () => {
    const other = await createLocalCluster(spec(newUid(), 1, 0), options);
    try {
      assert.notEqual(other.subnet, cluster.subnet);
      const { output } = await inNode(
        'worker-0',
        'timeout',
        '2',
        'bash',
        '-c',
        `exec 3<>/dev/tcp/${other.nodes[0]!.address}/22 || true; exec 3<>/dev/tcp/${gatewayOf(other)}/8080 && echo connected`,
      );
      assert.doesNotMatch(output, /connected/);
    } finally {
      await removeLocalCluster(other.uid, options);
    }
    assert.ok((await statusOfLocalCluster(cluster.uid)).every(({ running }) => running));
  });

  it('leaves nothing behind, however it was cut off, and can be told so twice', async () => {
    const own = await createLocalCluster(spec(newUid(), 1, 0), options);
    // As after a power cut of the launcher: its record of the first process is gone.
    await rm(join(clusterFolder(own.uid), 'nodes/control-plane-0/init.pid'));
    await removeLocalCluster(own.uid, options);
    await removeLocalCluster(own.uid, options);
    const places = [
      await host('ip', 'netns', 'list'),
      await host('ip', 'link'),
      await readFile('/proc/mounts', 'utf8'),
      await host('ps', 'axo', 'args'),
      await host('sh', '-c', 'find /sys/fs/cgroup -maxdepth 6 -type d -name "asterism-*"'),
      (await readdir('/var/lib/asterism/local')).join('\n'),
      (await readdir('/run/asterism')).join('\n'),
    ];
    for (const place of places)
      assert.ok(
        !place.includes(own.uid),
        place.split('\n').find((line) => line.includes(own.uid)),
      );
  });
});
