// The image of image/, booted: what its files are to make of a machine.
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import {
  eventually,
  inNode,
  newUid,
  SKIP_NODES,
  systemdUp,
  testOptions,
  testSpec,
} from './cluster.fixture.ts';
import type { LocalCluster } from './cluster.ts';
import { execInNode } from './exec.ts';
import { createLocalCluster, removeLocalCluster, startLocalNode, stopLocalNode } from './provider.ts';

const NODE = 'worker-0';
const OUR_UNITS = ['disk-mapper', 'bootstrapper', 'containerd', 'kubelet', 'disk-keeper'];

describe('a node of the image', { skip: SKIP_NODES }, () => {
  let cluster: LocalCluster;
  const options = testOptions();
  const sh = async (script: string) => (await inNode(cluster, NODE, 'bash', '-ec', script)).output;
  const ok = async (script: string) => {
    const { code, output } = await inNode(cluster, NODE, 'bash', '-ec', script);
    assert.equal(code, 0, `${script}: ${output}`);
    return output;
  };
  before(async () => {
    cluster = await createLocalCluster(await testSpec(newUid(), 1, 1), options);
    await systemdUp(cluster, NODE, 90_000);
  });
  after(async () => {
    if (cluster !== undefined) await removeLocalCluster(cluster.uid, options);
  });

  it('has no failed unit, and no unit that acts on the machine', async () => {
    assert.equal((await ok('systemctl --failed --no-legend --plain')).trim(), '');
    const started = await ok('systemctl list-units --all --no-legend --plain --state=active,failed');
    assert.doesNotMatch(started, /^(?:modprobe@|systemd-udev|systemd-modules|systemd-sysctl|e2scrub|getty)/m);
  });

  it('has units and settings that systemd knows', async () => {
    const units = [...OUR_UNITS.map((name) => `${name}.service`), 'disk-keeper.socket'].join(' ');
    // The kubelet comes with a cluster: until then its program is missing.
    const said = (await sh(`systemd-analyze verify ${units} 2>&1 || true`)).replace(
      /^kubelet\.service: .*\n/gm,
      '',
    );
    assert.equal(said.trim(), '');
    assert.doesNotMatch(await ok('journalctl -b --no-pager'), /Unknown key|Unknown section/);
    assert.match(await ok('systemctl show --property=DefaultTimeoutStopUSec'), /=10s/);
    assert.match(await ok('systemctl show --property=LimitCORE bootstrapper.service'), /LimitCORE=0/);
  });

  it('has nothing with which to install more', async () => {
    const found = await sh(
      'for name in apt apt-get perl python3 curl wget gcc; do command -v $name || true; done',
    );
    assert.equal(found.trim(), '');
  });

  it('runs the measured bundles, which nobody in it can change', async () => {
    const { code } = await inNode(
      cluster,
      NODE,
      'sh',
      '-c',
      'echo >> /usr/lib/asterism/bin/bootstrapper.mjs',
    );
    assert.notEqual(code, 0);
    assert.match(
      await ok('ls /usr/lib/asterism/bin'),
      /^bootstrapper\.mjs\ndisk-keeper\.mjs\ndisk-mapper\.mjs\n$/,
    );
  });

  it('starts the bootstrapper when the disk-mapper gets through only at the second try', async () => {
    await ok(`systemctl stop bootstrapper disk-mapper
      mkdir -p /run/systemd/system/disk-mapper.service.d
      printf '[Service]\\nExecStartPre=test -e /run/second-try\\n' > /run/systemd/system/disk-mapper.service.d/test.conf
      systemctl daemon-reload`);
    assert.notEqual((await inNode(cluster, NODE, 'systemctl', 'start', 'bootstrapper')).code, 0);
    await ok('touch /run/second-try');
    await eventually('both run', 60_000, async () => {
      const states = await sh('systemctl is-active disk-mapper bootstrapper || true');
      return /^active\nactive$/m.test(states);
    });
    await ok('rm -r /run/systemd/system/disk-mapper.service.d /run/second-try; systemctl daemon-reload');
  });

  it('runs containers of the services image: containerd, runc, and Node on its own libraries', async () => {
    await ok('systemctl start containerd');
    const plugins = await ok('ctr plugins ls 2> /dev/null');
    for (const plugin of [
      /snapshotter\.v1 +overlayfs .* ok/,
      /cri\.v1 +runtime .* ok/,
      /grpc\.v1 +cri .* ok/,
    ])
      assert.match(plugins, plugin);
    await startContainer();
  });

  async function startContainer(): Promise<void> {
    const signal = AbortSignal.timeout(120_000);
    const image = 'asterism.local/services:0.1.0';
    const run = `ctr -n k8s.io run --rm ${image} check /app/node -p 'process.version + " " + fs.readdirSync("/app")'`;
    let output = '';
    const code = await execInNode(
      cluster.uid,
      NODE,
      ['bash', '-ec', `ctr -n k8s.io images import /usr/lib/asterism/images/services.tar; ${run}`],
      {
        signal,
        stdio: 'pipe',
        onOutput: (chunk) => {
          output += chunk;
        },
      },
    );
    assert.equal(code, 0, output);
    assert.match(output, new RegExp(`^${process.version} join-service.mjs,key-service.mjs,node,`, 'm'));
  }

  it('keeps its id and its log over a reboot, and nothing that was put into its root', async () => {
    const ids = () => ok('cat /etc/machine-id /proc/sys/kernel/random/boot_id');
    const [machine, boot] = (await ids()).split('\n');
    await ok(`echo evil > /usr/lib/asterism/deploy/evil.yaml; echo evil > /etc/systemd/system/evil.service
      logger before-reboot; journalctl --sync`);
    await stopLocalNode(cluster.uid, NODE);
    await startLocalNode(cluster.uid, NODE);
    await systemdUp(cluster, NODE, 90_000);
    const [sameMachine, otherBoot] = (await ids()).split('\n');
    assert.match(machine!, /^[0-9a-f]{32}$/);
    assert.equal(sameMachine, machine);
    assert.notEqual(otherBoot, boot);
    assert.match(await ok('journalctl --boot=-1 --no-pager'), /before-reboot/);
    assert.doesNotMatch(await ok('journalctl --boot --no-pager'), /before-reboot/);
    assert.equal((await ok('find /usr /etc -name "evil*"')).trim(), '');
  });
});
