import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import { activeMappings } from '@asterism/disk/device-mapper';
import { latestImage } from '@asterism/image/build';
import { DEFAULT_VERSION } from '@asterism/kubernetes/components/catalogue';
import { testClusterName } from './abandoned.fixture.ts';
import type { LocalCluster } from './cluster.ts';
import { execInNode } from './exec.ts';
import { host } from './host.ts';
import type { LocalClusterSpec, ProviderOptions } from './provider.ts';

/** Why tests that make nodes are left out here; false where they run. */
export const SKIP_NODES =
  process.getuid?.() === 0 ? false : 'needs root: nodes have namespaces, cgroups and mounts of their own';

export const newUid = (): string => randomBytes(4).toString('hex');

export const testOptions = (): ProviderOptions => ({
  signal: AbortSignal.timeout(280_000),
  onDetail: () => {},
});

/** A cluster of the image that was built last. */
export async function testSpec(
  uid: string,
  controlPlaneNodes: number,
  workerNodes: number,
): Promise<LocalClusterSpec> {
  const image = await latestImage();
  assert.ok(image, 'no node image; run: ./asterism image build');
  return {
    name: await testClusterName(),
    uid,
    image: image.reference,
    kubernetesVersion: DEFAULT_VERSION,
    controlPlaneNodes,
    workerNodes,
    stateDiskMiB: 64,
    egress: false,
    initSecretHash: `$2b$10$${'a'.repeat(53)}`,
  };
}

/** Runs a program in a node and gives what it wrote. */
export async function inNode(
  cluster: Pick<LocalCluster, 'uid'>,
  name: string,
  ...argv: string[]
): Promise<{ code: number; output: string }> {
  let output = '';
  const onOutput = (chunk: Buffer) => {
    output += chunk;
  };
  const signal = AbortSignal.timeout(30_000);
  const code = await execInNode(cluster.uid, name, argv, { signal, stdio: 'pipe', onOutput });
  return { code, output };
}

/** Waits until something holds. */
export async function eventually(what: string, timeoutMs: number, holds: () => Promise<boolean>) {
  const end = Date.now() + timeoutMs;
  while (!(await holds().catch(() => false))) {
    assert.ok(Date.now() < end, `not within ${timeoutMs / 1000} s: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

/** Looks for anything of a cluster on this machine. Other clusters may come and go meanwhile. */
export async function assertNothingLeft(uid: string): Promise<void> {
  const places: Record<string, string> = {
    'network namespaces': await host('ip', 'netns', 'list'),
    links: await host('ip', 'link'),
    routes: await host('ip', 'route'),
    mounts: await readFile('/proc/mounts', 'utf8'),
    'rules of the firewall': await host('iptables-save'),
    'loop devices': await host('losetup', '--list', '--output', 'NAME,BACK-FILE'),
    mappings: (await activeMappings()).join('\n'),
    processes: await host('ps', 'axo', 'pid,args'),
    cgroups: await host('sh', '-c', 'find /sys/fs/cgroup -maxdepth 8 -type d -name "asterism-*"'),
    files: (await readdir('/var/lib/asterism/local').catch(() => [])).join('\n'),
    sockets: (await readdir('/run/asterism').catch(() => [])).join('\n'),
  };
  for (const [place, text] of Object.entries(places)) {
    const line = text.split('\n').find((one) => one.includes(uid));
    assert.equal(line, undefined, `left among the ${place}: ${line}`);
  }
}

/** Waits until systemd in a node is through with its units, whether or not all of them started. */
export const systemdUp = (cluster: Pick<LocalCluster, 'uid'>, name: string, timeoutMs: number) =>
  eventually(`systemd of ${name} is up`, timeoutMs, async () =>
    /^(running|degraded)$/m.test((await inNode(cluster, name, 'systemctl', 'is-system-running')).output),
  );
