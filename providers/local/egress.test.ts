// Who reaches whom with egress and without, on a host of the test's own (own-host.fixture.ts) between clusters and a
// further machine, which knows no way back into clusters. Nodes are their network namespaces here; a whole node with
// egress is booted at the end.
import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it, type TestContext, test } from 'node:test';
import { newUid, SKIP_NODES, testSpec } from './cluster.fixture.ts';
import type { LocalCluster } from './cluster.ts';
import { hostNameservers } from './egress.ts';
import { from, onOwnHost } from './own-host.fixture.ts';

const HOST = '198.51.100.1';
const BEYOND = '198.51.100.2';
/** What clouds have there, and another service of that kind; both beyond the host, which reaches them. */
const METADATA = ['169.254.169.254', '169.254.1.1'];

/** The host's other link, with a machine behind it that answers everywhere on port 7000 with the address of who asks. */
const WORLD = `
  echo 0 > /proc/sys/net/ipv4/ip_forward
  ip netns add beyond
  ip link add wan type veth peer name eth0 netns beyond
  ip addr add ${HOST}/24 dev wan
  ip link set wan up
  ip route add 169.254.0.0/16 dev wan
  ip netns exec beyond sh -ec '
    ip link set lo up
    ip addr add ${BEYOND}/24 dev eth0
    ip link set eth0 up
    ${METADATA.map((address) => `ip addr add ${address}/32 dev eth0`).join('\n')}
  '`;

function cluster(subnet: number, egress: boolean): LocalCluster {
  const node = { name: 'worker-0', role: 'Worker', address: `10.77.${subnet}.11` } as const;
  const rest = { imageFolder: '/nowhere', initSecretHash: '', stateDiskMiB: 64, stateDisksMapped: false };
  return { name: 'test', uid: newUid(), subnet, egress, ...rest, nodes: [node] };
}

/** What the scripts here have at hand. */
const TOOLS = `
  import { execFile, execFileSync, spawn } from 'node:child_process';
  import { promisify } from 'node:util';
  import { once } from 'node:events';
  import { readFileSync, writeFileSync } from 'node:fs';
  import { connectNode, ensureFabric, fabricName, nodeNetworkName, removeNetworks } from ${from('network.ts')};
  import { restoreForwarding } from ${from('host-limits.ts')};
  const SERVE = \`require('node:net').createServer((socket) => socket.on('error', () => {}).end(socket.remoteAddress))
    .listen(7000, '0.0.0.0', () => console.log('serving'))\`;
  const within = (network) => network === 'host' ? [] : ['nsenter', '--net=/run/netns/' + network];
  const children = [];
  const serve = async (network) => {
    const [file, ...args] = [...within(network), process.execPath, '--eval', SERVE];
    const child = spawn(file, args, { stdio: ['ignore', 'pipe', 'inherit'] });
    children.push(child);
    await once(child.stdout, 'data');
  };
  const ask = async (network, address) => {
    const script = 'exec 3<>/dev/tcp/' + address + '/7000 && cat <&3';
    const [file, ...args] = [...within(network), 'timeout', '3', 'bash', '-c', script];
    const answer = await promisify(execFile)(file, args).catch(() => undefined);
    return answer === undefined ? 'nothing' : answer.stdout;
  };
  const askAll = (network, addresses) => Promise.all(addresses.map((address) => ask(network, address)));
  const rules = () => execFileSync('iptables-save', { encoding: 'utf8' }).split('\\n').filter((line) => line.startsWith('-A'));
  const forwards = () => readFileSync('/proc/sys/net/ipv4/ip_forward', 'utf8').trim();
  const nodeOf = (cluster) => nodeNetworkName(cluster.uid, 'worker-0');
  const make = async (cluster) => {
    await ensureFabric(cluster);
    await connectNode(cluster, cluster.nodes[0]);
  };
  const end = (seen) => {
    for (const child of children) child.kill('SIGKILL');
    process.stdout.write(JSON.stringify(seen));
  };`;

const run = (t: TestContext, script: string, before = '') =>
  onOwnHost(t, `${WORLD}\n${before}`, `${TOOLS}\n${script}`) as Promise<never>;

describe('egress of a local cluster', { skip: SKIP_NODES }, () => {
  const open = cluster(1, true);
  const shut = cluster(2, false);
  const other = cluster(3, true);
  const names = JSON.stringify({ open, shut, other });
  const MAKE = `
    const { open, shut, other } = ${names};
    for (const one of [open, shut, other]) await make(one);
    for (const network of ['host', 'beyond', nodeOf(shut), nodeOf(other), fabricName(other.uid)]) await serve(network);`;

  it('reaches the host and what is beyond it; no other cluster and nothing link-local', async (t) => {
    const targets = {
      host: HOST,
      'link to the host': '10.77.1.254',
      beyond: BEYOND,
      'shut node': '10.77.2.11',
      'open node': '10.77.3.11',
      'services of another cluster': '10.77.3.1',
      'link of another cluster': '10.77.3.254',
      metadata: METADATA[0],
      'link-local': METADATA[1],
    };
    const seen: string[][] = await run(
      t,
      `${MAKE}
      const targets = ${JSON.stringify(Object.values(targets))};
      end(await Promise.all([nodeOf(open), nodeOf(shut), 'host'].map((from) => askAll(from, targets))));`,
    );
    const [fromOpen, fromShut, fromHost] = seen.map((answers) =>
      Object.fromEntries(Object.keys(targets).map((name, i) => [name, answers[i]!])),
    );
    const nothing = Object.fromEntries(Object.keys(targets).map((name) => [name, 'nothing']));
    assert.deepEqual(fromOpen, {
      ...nothing,
      host: '10.77.1.11',
      'link to the host': '10.77.1.11',
      beyond: HOST,
    });
    assert.deepEqual(fromShut, { ...nothing, 'shut node': '10.77.2.11' });
    // All of them answer the host: whoever is refused above is refused by the fabric.
    assert.equal(Object.values(fromHost!).includes('nothing'), false, JSON.stringify(fromHost));
  });

  it('opens no way into clusters, or through the host, to its neighbours', async (t) => {
    const seen = await run(
      t,
      `${MAKE}
      execFileSync('ip', ['netns', 'add', 'further']);
      execFileSync('sh', ['-ec', \`
        ip link add lan type veth peer name eth0 netns further
        ip addr add 203.0.113.1/24 dev lan; ip link set lan up
        ip netns exec beyond ip route add default via ${HOST}
        ip netns exec further sh -ec 'ip link set lo up; ip addr add 203.0.113.2/24 dev eth0
          ip link set eth0 up; ip route add default via 203.0.113.1'\`]);
      await serve('further');
      await serve(nodeOf(open));
      await serve(fabricName(open.uid));
      const from = (network) => askAll(network, ['10.77.1.11', '10.77.1.1', '10.77.2.11', '203.0.113.2']);
      const closed = await from('beyond');
      // A host that forwarded already goes on so: then it is the fabric that refuses.
      execFileSync('iptables', ['-F', 'FORWARD']);
      end({ closed, router: await from('beyond'), host: await from('host') });`,
    );
    assert.deepEqual(seen, {
      closed: ['nothing', 'nothing', 'nothing', 'nothing'],
      router: ['nothing', 'nothing', 'nothing', BEYOND],
      host: ['10.77.1.254', '10.77.1.254', '10.77.2.254', '203.0.113.1'],
    });
  });

  it('works where the host drops what it would forward, and is made anew where a part is lost', async (t) => {
    const seen = await run(
      t,
      `const { open } = ${names};
      await make(open);
      await serve('beyond');
      const seen = [await ask(nodeOf(open), '${BEYOND}')];
      const before = rules();
      await ensureFabric(open);
      seen.push(JSON.stringify(rules()) === JSON.stringify(before));
      execFileSync('sh', ['-ec', 'iptables -F; iptables -t nat -F; echo 0 > /proc/sys/net/ipv4/ip_forward']);
      seen.push(await ask(nodeOf(open), '${BEYOND}'));
      await ensureFabric(open);
      seen.push(await ask(nodeOf(open), '${BEYOND}'));
      execFileSync('ip', ['link', 'del', 'ast' + open.uid]);
      execFileSync('ip', ['netns', 'del', nodeOf(open)]);
      await make(open);
      seen.push(await ask(nodeOf(open), '${BEYOND}'), rules().length === before.length);
      end(seen);`,
      'iptables -P FORWARD DROP',
    );
    assert.deepEqual(seen, [HOST, true, 'nothing', HOST, HOST, true]);
  });

  it('leaves nothing of its own and everything of others', async (t) => {
    const seen = await run(
      t,
      `const { open, other } = ${names};
      const theirs = rules();
      for (const one of [open, other]) await make(one);
      const both = rules();
      await removeNetworks(open.uid);
      await removeNetworks(open.uid);
      const one = rules();
      await serve('beyond');
      const still = await ask(nodeOf(other), '${BEYOND}');
      const without = (uid) => both.filter((line) => !line.includes(uid));
      // Of one that was made by half, the rules may be all there is.
      execFileSync('ip', ['netns', 'del', fabricName(other.uid)]);
      await removeNetworks(other.uid);
      const raised = forwards();
      await restoreForwarding();
      end({
        one: JSON.stringify(one) === JSON.stringify(without(open.uid)),
        still,
        none: JSON.stringify(rules()) === JSON.stringify(theirs),
        theirs: theirs.length, both: both.length, raised, restored: forwards(),
      });`,
      `iptables -A FORWARD -s 10.77.1.0/24 -m comment --comment "somebody else's" -j ACCEPT
       iptables -t nat -A POSTROUTING -s 192.0.2.0/24 -j MASQUERADE`,
    );
    assert.deepEqual(seen, {
      one: true,
      still: HOST,
      none: true,
      theirs: 2,
      both: 10,
      raised: '1',
      restored: '0',
    });
  });

  it('leaves a host that forwards as it is', async (t) => {
    const seen = await run(
      t,
      `const { open } = ${names};
      await make(open);
      const drops = rules().filter((line) => line.endsWith('DROP'));
      await removeNetworks(open.uid);
      await restoreForwarding();
      end([drops, forwards()]);`,
      'echo 1 > /proc/sys/net/ipv4/ip_forward',
    );
    assert.deepEqual(seen, [[], '1']);
  });

  it('stays with a cluster: a node that is started again has it, and name servers of the host', async (t) => {
    const spec = { ...(await testSpec(newUid(), 0, 1)), egress: true };
    const seen = await run(
      t,
      `import { createLocalCluster, removeLocalCluster, startLocalNode, stopLocalNode } from ${from('provider.ts')};
      import { execInNode } from ${from('exec.ts')};
      const options = { signal: AbortSignal.timeout(180_000), onDetail() {} };
      const { uid } = await createLocalCluster(${JSON.stringify(spec)}, options);
      await serve('beyond');
      const inNode = async () => {
        let said = '';
        const script = 'exec 3<>/dev/tcp/${BEYOND}/7000 && cat <&3; echo; cat /etc/resolv.conf';
        await execInNode(uid, 'worker-0', ['timeout', '5', 'bash', '-c', script], {
          stdio: 'pipe', signal: options.signal, onOutput: (chunk) => { said += chunk; } });
        return said;
      };
      const seen = [await inNode()];
      await stopLocalNode(uid, 'worker-0');
      await removeNetworks(uid);
      await startLocalNode(uid, 'worker-0');
      seen.push(await inNode());
      await removeLocalCluster(uid, options);
      end([...seen, rules(), forwards()]);`,
      `printf 'nameserver 127.0.0.53\\nnameserver 192.0.2.53\\n' > "$1/resolv.conf"
       mount --bind "$1/resolv.conf" /etc/resolv.conf`,
    );
    const said = `${HOST}\nnameserver 192.0.2.53\n`;
    assert.deepEqual(seen, [said, said, [], '0']);
  });
});

test('name servers of the host are those that nodes can ask', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'asterism-resolv-'));
  t.after(() => rm(folder, { recursive: true }));
  const [first, second] = [join(folder, 'first'), join(folder, 'second')];
  const found = async (text: string) => {
    await writeFile(first, text);
    return hostNameservers([first, second]);
  };
  assert.deepEqual(await found('nameserver 127.0.0.53\noptions edns0\n'), []);
  await writeFile(second, 'nameserver 192.0.2.1\n');
  assert.deepEqual(await found('nameserver 127.0.0.53\n'), ['192.0.2.1']);
  assert.deepEqual(await found('#nameserver 192.0.2.9\nnameserver\t192.0.2.7 \nnameserver ::1\n'), [
    '192.0.2.7',
  ]);
  assert.deepEqual(await found('nameserver 169.254.169.253\nnameserver 192.0.2.1x\nnameserver 1.2\n'), [
    '192.0.2.1',
  ]);
  const many = [1, 2, 3, 4].map((n) => `nameserver 192.0.2.${n}\n`).join('');
  assert.deepEqual(await found(many), ['192.0.2.1', '192.0.2.2', '192.0.2.3']);
  await rm(first);
  assert.deepEqual(await hostNameservers([first, second]), ['192.0.2.1']);
});
