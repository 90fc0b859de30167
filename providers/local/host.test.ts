import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { it } from 'node:test';
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
