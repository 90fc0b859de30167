// The bootstrapper as a process: a real TPM, a real state disk, a network and a /run of its own; nobody calls it.
import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { mkdir, truncate, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { StateDisk } from '@asterism/disk/state-disk';
import { type Swtpm, startSwtpm } from '@asterism/testkit/swtpm';
import { type TemporaryFolder, temporaryFolder } from '@asterism/testkit/temporary-folder';

const skip = process.getuid?.() !== 0 && 'needs root: the process gets a /run and a network of its own';
const run = promisify(execFile);
const START_TIMEOUT_MS = 60_000;

interface Machine {
  readonly Name: string;
  Role: string;
}

describe('the process of a bootstrapper', { skip }, () => {
  let folder: TemporaryFolder;
  let tpm: Swtpm;
  before(async () => {
    folder = await temporaryFolder();
    tpm = await startSwtpm();
    await writeFile(folder.file('disk.img'), '');
    await truncate(folder.file('disk.img'), 32 * 1024 * 1024);
    const disk = new StateDisk({
      device: folder.file('disk.img'),
      mappable: false,
      scratch: folder.file('scratch'),
    });
    await disk.format(new Uint8Array(32).fill(1));
  });
  after(async () => {
    await tpm[Symbol.asyncDispose]();
    await folder[Symbol.asyncDispose]();
  });

  /** Runs it until it has logged `until`. @param machines itself first; may change meanwhile */
  async function start(machines: Machine[]) {
    const root = join(folder.path, `life-${performance.now()}`);
    await mkdir(join(root, 'run/state/asterism'), { recursive: true });
    const told: string[] = [];
    const metadata = await serveMetadata(join(root, 'metadata.sock'), machines, told);
    const script = [
      'ip link set lo up',
      `mount --bind ${root}/run /run`,
      `exec "${process.execPath}" "${join(import.meta.dirname, 'main.ts')}"`,
    ].join(' && ');
    const child = spawn('unshare', ['--mount', '--net', '--propagation', 'private', 'sh', '-c', script], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: {
        PATH: '/usr/sbin:/usr/bin:/sbin:/bin',
        ASTERISM_ATTESTATION_VARIANT: 'qemu-vtpm',
        ASTERISM_TPM: tpm.address,
        ASTERISM_METADATA: `unix:${root}/metadata.sock`,
        ASTERISM_STATE_DISK: folder.file('disk.img'),
        ASTERISM_PROVIDER: 'local',
        ASTERISM_STATE_MAPPED: 'false',
      },
    });
    let output = '';
    for (const stream of [child.stdout, child.stderr])
      stream.on('data', (chunk: Buffer) => {
        output += chunk.toString('utf8');
      });
    const ended = new Promise<number | null>((resolve) => child.once('close', resolve));
    const has = async (text: string): Promise<void> => {
      const deadline = performance.now() + START_TIMEOUT_MS;
      while (!output.includes(text)) {
        if (child.exitCode !== null || performance.now() > deadline) {
          child.kill('SIGKILL');
          throw new Error(`the bootstrapper did not say "${text}": ${output}`);
        }
        await sleep(50);
      }
    };
    /** Asks from within its network. */
    const inside = async (code: string): Promise<string> => {
      const net = `--net=/proc/${child.pid}/ns/net`;
      return (await run('nsenter', [net, process.execPath, '-e', code])).stdout;
    };
    return {
      has,
      told,
      metrics: () =>
        inside("fetch('http://127.0.0.1:9103/metrics').then(async (r) => console.log(await r.text()))"),
      /** Whether anything listens for an init. */
      servesInit: async () =>
        (await inside(
          "const s = require('node:net').connect(9000, '127.0.0.1');" +
            "s.on('connect', () => { console.log('yes'); s.destroy(); }); s.on('error', (e) => console.log(e.code));",
        )) === 'yes\n',
      async stop(): Promise<{ code: number | null; said: (string | undefined)[] }> {
        child.kill('SIGTERM');
        const timer = setTimeout(() => child.kill('SIGKILL'), 25_000);
        const code = await ended;
        clearTimeout(timer);
        metadata.closeAllConnections();
        metadata.close();
        const lines = output
          .trim()
          .split('\n')
          .map((line) => JSON.parse(line) as { level: number; msg?: string });
        assert.ok(
          lines.every(({ level }) => level < 50),
          output,
        );
        return { code, said: lines.map(({ msg }) => msg) };
      },
    };
  }

  /** It ended as told, and claims to be nothing that it is not. */
  async function endsClean(one: Awaited<ReturnType<typeof start>>): Promise<void> {
    assert.match(await one.metrics(), /asterism_bootstrapper_phase\{phase="member"\} 0/);
    const { code, said } = await one.stop();
    assert.equal(code, 0, JSON.stringify(said));
    assert.ok(said.includes('stopping'));
    assert.ok(!said.includes('bootstrapper done'));
    assert.deepEqual(
      one.told.filter((line) => !line.startsWith('bootstrapper started (fresh)')),
      [],
    );
  }

  test('that waits for an init ends with 0 at SIGTERM, as no member', async () => {
    const one = await start([{ Name: 'cp-0', Role: 'control-plane' }]);
    await one.has('init is served');
    assert.ok(await one.servesInit());
    await endsClean(one);
  });

  test('whose role is not known yet serves no init until it is', async () => {
    const self = { Name: 'cp-0', Role: '' };
    const one = await start([self]);
    await one.has('it is not known yet who takes the init');
    assert.equal(await one.servesInit(), false);
    self.Role = 'control-plane';
    await one.has('init is served');
    await endsClean(one);
  });

  test('that waits for its role ends with 0 at SIGTERM', async () => {
    const one = await start([{ Name: 'cp-0', Role: '' }]);
    await one.has('it is not known yet who takes the init');
    await endsClean(one);
  });

  for (const [what, role, why] of [
    ['second control plane', 'control-plane', 'cp-0 comes before node'],
    ['worker', 'worker', 'this machine is a worker'],
  ] as const) {
    test(`of a ${what} serves no init, says why, and ends with 0 at SIGTERM`, async () => {
      const one = await start([
        { Name: 'node', Role: role },
        { Name: 'cp-0', Role: 'control-plane' },
      ]);
      await one.has('this machine does not take an init; it joins');
      await one.has(why);
      assert.equal(await one.servesInit(), false);
      await endsClean(one);
    });
  }
});

/** wire-facts 2.10, of machines that may change. */
async function serveMetadata(socket: string, machines: readonly Machine[], told: string[]) {
  const peers = () =>
    machines.map((machine, i) => ({
      ...machine,
      ProviderID: `local:///${machine.Name}`,
      VPCIP: `127.0.0.${i + 1}`,
    }));
  const answers: Record<string, () => string> = {
    '/self': () => JSON.stringify(peers()[0]),
    '/peers': () => JSON.stringify(peers()),
    '/endpoint': () => '"127.0.0.1"',
    '/initsecrethash': () => `$2b$10$${'a'.repeat(53)}`,
  };
  const server = createServer(async (request, response) => {
    if (request.url === '/log') {
      let line = '';
      for await (const chunk of request) line += chunk;
      told.push(line);
      response.end();
    } else response.end(answers[request.url ?? '']?.());
  });
  await new Promise<void>((resolve, reject) => server.once('error', reject).listen(socket, resolve));
  return server;
}
