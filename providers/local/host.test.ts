import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, rmdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { SKIP_NODES } from './cluster.fixture.ts';
import { checkHost } from './host.ts';

it('says what a machine lacks for so many nodes', { skip: SKIP_NODES }, async () => {
  await checkHost(['ControlPlane', 'Worker'], 64);
  await assert.rejects(checkHost(Array(5000).fill('ControlPlane'), 64), (error: Error & { code: string }) => {
    assert.equal(error.code, 'ERR_HOST');
    assert.match(error.message, /MiB of memory are available, 5000 nodes need 6000000; /);
    assert.match(error.message, /MiB of disk are free .* 5000 nodes need 15000000; /);
    return true;
  });
});

it('tells others than root so, before anything else', { skip: SKIP_NODES }, () => {
  const script = `
    import { checkHost } from ${JSON.stringify(join(import.meta.dirname, 'host.ts'))};
    process.setuid(65534);
    await checkHost(['Worker'], 64).catch((error) => process.stdout.write(error.code + ' ' + error.message));`;
  const { stdout } = spawnSync(process.execPath, ['--input-type=module', '--eval', script], {
    encoding: 'utf8',
  });
  assert.equal(stdout, 'ERR_HOST this machine cannot run local nodes: they are made by root; use sudo');
});

describe('a container, whose cgroup version 2 passes no controllers on', { skip: SKIP_NODES }, () => {
  const [unified = ''] = ['/sys/fs/cgroup/unified', '/sys/fs/cgroup'].filter((path) =>
    existsSync(join(path, 'cgroup.controllers')),
  );
  /** Runs a script as a container's first process would: it is in the cgroup that is the root for it. */
  const inContainer = (script: string) => {
    const own = join(unified, `asterism-container-${process.pid}`);
    mkdirSync(own);
    try {
      const enter = 'echo $$ > "$1/cgroup.procs"; shift; exec unshare --mount --cgroup sh -ec "$@"';
      const inside = 'mount -t cgroup2 none /sys/fs/cgroup; exec "$0" --input-type=module --eval "$1"';
      const argv = ['-ec', enter, 'sh', own, inside, process.execPath, script];
      const { stdout, stderr } = spawnSync('sh', argv, { encoding: 'utf8', timeout: 60_000 });
      return stdout || stderr;
    } finally {
      rmdirSync(own);
    }
  };
  const from = (name: string) => JSON.stringify(join(import.meta.dirname, name));
  const report = "(error) => process.stdout.write(error.code + ' ' + error.message)";

  it('is told from a machine, with what to do', { skip: unified === '' }, () => {
    const said = inContainer(`
      import { checkHost } from ${from('host.ts')};
      await checkHost(['Worker'], 64).catch(${report});`);
    assert.match(said, /^ERR_HOST this machine cannot run local nodes:/);
    assert.match(said, /\n- cgroups lack cpu, cpuset, io, memory, pids; .*--cgroupns=host/);
  });

  it('gets no node, also where a cluster came from a machine', { skip: unified === '' }, () => {
    const said = inContainer(`
      import { createGroup, removeGroups } from ${from('cgroups.ts')};
      await createGroup('0badcafe', 'worker-0').catch(${report});
      await removeGroups('0badcafe');`);
    assert.match(said, /^ERR_HOST .*asterism-0badcafe\/worker-0 lacks cpu, cpuset, io, memory, pids; /);
  });
});
