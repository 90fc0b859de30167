import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { readFile, readlink, rename } from 'node:fs/promises';
import { request } from 'node:http';
import { type AddressInfo, connect, createServer } from 'node:net';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { isDeepStrictEqual } from 'node:util';
import { toHex } from '@asterism/bytes/encoding';
import { parseEventLog, replay, SHA256 } from '@asterism/eventlog/event-log';
import { type BuiltImage, latestImage } from '@asterism/image/build';
import { DEFAULT_VERSION } from '@asterism/kubernetes/components/catalogue';
import { readManifest } from '@asterism/kubernetes/components/manifest';
import { httpMetadata } from '@asterism/metadata/http-metadata';
import { withTpm } from '@asterism/tpm/with-tpm';
import { hostGroupOf, processesIn } from './cgroups.ts';
import {
  eventually,
  newUid,
  inNode as run,
  SKIP_NODES,
  systemdUp,
  testOptions,
  testSpec,
} from './cluster.fixture.ts';
import { gatewayOf, hostAddressOf, type LocalCluster, nodeRuntime } from './cluster.ts';
import { ownComponents } from './components.ts';
import { metadataSocketOf } from './metadata-server.ts';
import { runningInit } from './node.ts';
import {
  addLocalNode,
  createLocalCluster,
  nodeLogPath,
  removeLocalCluster,
  startLocalNode,
  statusOfLocalCluster,
  stopLocalNode,
} from './provider.ts';
import { stopSupervisor } from './supervisor.ts';
import { tpmAddress } from './tpm.ts';

/** Whether anybody takes connections there. */
const connects = (host: string, port: number) =>
  new Promise<boolean>((resolve) => {
    const socket = connect({ host, port }, () => resolve(true));
    socket.once('error', () => resolve(false)).once('connect', () => socket.destroy());
  });

const PCRS = [4, 8, 9, 11, 12, 13, 15];

describe('provider local', { skip: SKIP_NODES }, () => {
  let image: BuiltImage;
  let cluster: LocalCluster;
  const options = testOptions();
  const inNode = (name: string, ...argv: string[]) => run(cluster, name, ...argv);
  /** Before that, systemctl has nobody to talk to. */
  const pcrsOf = (uid: string, node: string) => withTpm(tpmAddress(uid, node), (tpm) => tpm.readPcrs(PCRS));

  before(async () => {
    const found = await latestImage();
    assert.ok(found, 'no node image; run: ./asterism image build');
    image = found;
    cluster = await createLocalCluster(await testSpec(newUid(), 1, 1), options);
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
    const { output } = await inNode('worker-0', 'bash', '-c', 'hostname; cat /proc/1/comm; ps ax | wc -l');
    assert.match(output, /^worker-0\nsystemd\n/);
    const processes = Number(output.trim().split('\n').at(-1));
    assert.ok(processes < 60, `${processes} processes are seen in the node`);
    const { pid } = (await runningInit(cluster.uid, 'worker-0'))!;
    for (const kind of ['mnt', 'net', 'pid', 'uts', 'ipc', 'cgroup'])
      assert.notEqual(
        await readlink(`/proc/${pid}/ns/${kind}`),
        await readlink(`/proc/self/ns/${kind}`),
        kind,
      );
    // Every hierarchy, seen from the host and from the node: what to the host is below the node's cgroup is to the node
    // below the root, so that nothing beside it has a name there.
    const own = `/asterism-${cluster.uid}/worker-0`;
    const pathsOf = (text: string) =>
      new Map(
        text
          .trim()
          .split('\n')
          .map((line) => [line.split(':')[1]!, line.split(':')[2]!]),
      );
    const fromOutside = async () => pathsOf(await readFile(`/proc/${pid}/cgroup`, 'utf8'));
    let outside = await fromOutside();
    let inside: typeof outside;
    for (;;) {
      inside = pathsOf((await inNode('worker-0', 'cat', '/proc/1/cgroup')).output);
      const now = await fromOutside();
      // While it starts, systemd moves itself to init.scope: both must be of the same moment.
      if (isDeepStrictEqual(now, outside)) break;
      outside = now;
    }
    assert.deepEqual([...inside.keys()], [...outside.keys()]);
    for (const [hierarchy, path] of outside) {
      const [above, below] = path.split(own);
      assert.ok(below !== undefined, `${hierarchy || 'unified'}: ${path} is not in ${own}`);
      assert.equal(inside.get(hierarchy), below || '/', `${hierarchy || 'unified'}, below ${above}`);
    }
  });

  it('tells each node who it is, on a socket that no other node has', async () => {
    for (const node of cluster.nodes) {
      const metadata = httpMetadata(`unix:${metadataSocketOf(cluster.uid, node.name)}`);
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
        'find / -xdev -name "*.sock" -path "*asterism*" 2>/dev/null; ls -R /run/asterism',
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

  it('boots a node again that asked for it, with empty PCRs', async () => {
    const before = (await runningInit(cluster.uid, 'worker-0'))?.pid;
    // Before that the disk-mapper would refuse a machine that is a member already, again and again.
    await systemdUp(cluster, 'worker-0', 60_000);
    await withTpm(tpmAddress(cluster.uid, 'worker-0'), (tpm) => tpm.eventPcr(15, randomBytes(32)));
    await inNode('worker-0', 'systemctl', 'reboot', '--no-block');
    await eventually('the node runs again', 60_000, async () => {
      const init = await runningInit(cluster.uid, 'worker-0');
      return init !== undefined && init.pid !== before;
    });
    assert.equal(toHex((await pcrsOf(cluster.uid, 'worker-0')).get(15)!), '00'.repeat(32));
    await systemdUp(cluster, 'worker-0', 60_000);
    await inNode('worker-0', 'systemctl', 'poweroff', '--no-block');
    await eventually('the node is off, and its TPM', 60_000, async () => {
      const { uid } = cluster;
      const left = [
        ...(await processesIn(uid, 'worker-0')),
        ...(await processesIn(uid, hostGroupOf('worker-0'))),
      ];
      return left.length === 0 && (await runningInit(uid, 'worker-0')) === undefined;
    });
    await startLocalNode(cluster.uid, 'worker-0');
  });

  const killSupervisor = async () => {
    for (const pid of await processesIn(cluster.uid, 'supervisor.host')) {
      const command = await readFile(`/proc/${pid}/cmdline`, 'utf8');
      if (command.startsWith(process.execPath)) process.kill(pid, 'SIGKILL');
    }
  };

  it('tells nodes who they are and balances also where its components are lost', async () => {
    const metadata = httpMetadata(`unix:${metadataSocketOf(cluster.uid, 'worker-0')}`);
    const components = ownComponents(cluster.uid);
    await rename(components, `${components}.away`);
    await killSupervisor();
    await eventually('it serves again', 20_000, async () => (await metadata.self()).name === 'worker-0');
    await eventually('it balances', 20_000, async () => await connects(gatewayOf(cluster), 30081));
    const { hash } = (await readManifest(DEFAULT_VERSION))!.components[0]!;
    const ask = async () =>
      (await fetch(`http://${gatewayOf(cluster)}:8080/components/${hash.slice('sha256:'.length)}`)).status;
    await eventually('the mirror says so', 20_000, async () => (await ask()) === 404);
    await rename(`${components}.away`, components);
    assert.equal(await ask(), 200);
  });

  it('survives its supervisor: nodes run on, and another one takes over', async () => {
    const metadata = httpMetadata(`unix:${metadataSocketOf(cluster.uid, 'worker-0')}`);
    await killSupervisor();
    await eventually(
      'metadata is served again',
      20_000,
      async () => (await metadata.self()).name === 'worker-0',
    );
    await stopSupervisor(cluster.uid);
    await assert.rejects(metadata.self(), { code: 'ERR_UNREACHABLE' });
    assert.ok((await statusOfLocalCluster(cluster.uid)).every(({ running }) => running));
    await startLocalNode(cluster.uid, 'worker-0');
    assert.equal((await metadata.self()).name, 'worker-0');
  });

  it('keeps what nodes log within bounds, and free of what a terminal would obey', async () => {
    const socketPath = metadataSocketOf(cluster.uid, 'worker-0');
    const ask = (method: string, path: string, body = '') =>
      new Promise<number | undefined>((resolve, reject) =>
        request({ socketPath, method, path }, (response) => {
          response.resume();
          resolve(response.statusCode);
        })
          .on('error', reject)
          .end(body),
      );
    assert.equal(await ask('POST', '/log', 'one\x1b[2Jtwo\nthree'), 200);
    assert.equal(await ask('POST', '/log', 'x'.repeat(1 << 20)), 413);
    assert.equal(await ask('POST', '/self'), 404);
    assert.equal(await ask('GET', '/../self'), 404);
    const log = await readFile(nodeLogPath(cluster.uid, 'worker-0'), 'utf8');
    assert.match(log, /one \[2Jtwo three\n/);
    assert.ok(log.split('\n').every((line) => line.length <= 16 * 1024));
  });

  it('lets the host reach nodes, but not nodes call the host', async () => {
    const server = createServer((socket) => socket.end('hello'));
    await new Promise<void>((resolve) => server.listen(0, hostAddressOf(cluster), resolve));
    const { port } = server.address() as AddressInfo;
    try {
      const script = `exec 3<>/dev/tcp/${hostAddressOf(cluster)}/${port} && cat <&3`;
      const { output } = await inNode('worker-0', 'timeout', '2', 'bash', '-c', script);
      assert.doesNotMatch(output, /hello/);
      // It is refused by the node itself, which has no such server: so it was asked.
      const { address } = cluster.nodes.find(({ name }) => name === 'worker-0')!;
      await assert.rejects(
        new Promise((resolve, reject) =>
          connect({ host: address, port: 7 }, () => resolve(0)).on('error', reject),
        ),
        { code: 'ECONNREFUSED' },
      );
    } finally {
      server.close();
    }
  });

  it('serves the components that are listed, by hash, and nothing else', async () => {
    const mirror = `http://${gatewayOf(cluster)}:8080`;
    const manifest = await readManifest(DEFAULT_VERSION);
    const smallest = manifest!.components.toSorted((a, b) => a.size - b.size)[0]!;
    const hash = smallest.hash.slice('sha256:'.length);
    const answer = await fetch(`${mirror}/components/${hash}`);
    const body = new Uint8Array(await answer.arrayBuffer());
    assert.equal(createHash('sha256').update(body).digest('hex'), hash);
    for (const path of [`/components/${'0'.repeat(64)}`, '/components/', '/components.json', '/']) {
      assert.equal((await fetch(mirror + path)).status, 404, path);
    }
  });

  it('adds a node, which the others then know', async () => {
    const added = await addLocalNode(cluster.uid, 'Worker');
    assert.equal(added.name, 'worker-1');
    const metadata = (name: string) => httpMetadata(`unix:${metadataSocketOf(cluster.uid, name)}`);
    await eventually('it is told who it is', 10_000, async () => {
      return (await metadata('worker-1').self()).vpcIp === added.address;
    });
    assert.deepEqual(
      (await metadata('worker-0').list()).map(({ name }) => name),
      ['control-plane-0', 'worker-0', 'worker-1'],
    );
    const { code } = await inNode('worker-1', 'bash', '-c', `exec 3<>/dev/tcp/${gatewayOf(cluster)}/8080`);
    assert.equal(code, 0);
  });

  it('keeps a second cluster beside the first apart from it', async () => {
    const other = await createLocalCluster(await testSpec(newUid(), 1, 0), options);
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
});
