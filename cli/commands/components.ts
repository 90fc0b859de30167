import { AsterismError } from '@asterism/errors/errors';
import { Command } from 'commander';
import { contextOf } from '../context.ts';
import { EXIT } from '../exit-codes.ts';
import type { KubernetesComponents, KubernetesVersion, LoadParts } from '../parts.ts';

export function componentsCommand(load: LoadParts): Command {
  const components = new Command('components').description('The Kubernetes components that nodes install.');
  components.addCommand(
    new Command('list')
      .description('List the versions of the catalogue and what of them is in the cache.')
      .action(async (_options: object, command: Command) => {
        const { out } = contextOf(command);
        const versions = await (await load()).components.list();
        out.result({ versions }, versions.map(describe).join('\n'));
      }),
  );
  components.addCommand(
    new Command('build')
      .description('Bring every component of a version into the cache; what is there already is kept.')
      .argument('[version]', 'e.g. v1.37.2 (default: the newest of the catalogue)')
      .option(
        '--official',
        'download what the Kubernetes project publishes, by pinned SHA-256, instead of building it',
      )
      .action(async (given: string | undefined, options: { official?: boolean }, command: Command) => {
        const { out, progress, signal } = contextOf(command);
        const parts = await load();
        const { version } = await choose(parts.components, given);
        await progress.phase(`components of ${version}`, (onDetail) =>
          parts.components.provide(version, {
            signal,
            onDetail,
            ...(options.official ? { official: 'only' } : {}),
          }),
        );
        const after = await choose(parts.components, version);
        out.result(after, describe(after));
      }),
  );
  components.addCommand(
    new Command('verify')
      .description('Hash every component of a version in the cache and compare with what is expected.')
      .argument('[version]', 'e.g. v1.37.2 (default: the newest of the catalogue)')
      .action(async (given: string | undefined, _options: object, command: Command) => {
        const { out } = contextOf(command);
        const parts = await load();
        const { version } = await choose(parts.components, given);
        const checks = await parts.components.verify(version);
        const lines = checks.map(({ name, outcome, detail }) =>
          out.checkLine({ name, outcome: outcome === 'passed' ? 'passed' : 'failed', detail }),
        );
        out.result({ version, components: checks }, [version, ...lines].join('\n'));
        if (checks.some((check) => check.outcome === 'failed')) process.exitCode = EXIT.evidenceFalse;
        else if (checks.some((check) => check.outcome === 'missing')) process.exitCode = EXIT.failure;
      }),
  );
  return components;
}

async function choose(
  components: KubernetesComponents,
  given: string | undefined,
): Promise<KubernetesVersion> {
  const versions = await components.list();
  const found = versions.find((entry) => (given === undefined ? entry.isDefault : entry.version === given));
  if (found !== undefined) return found;
  throw new AsterismError(
    'ERR_KUBERNETES_VERSION',
    `${given} is not in the catalogue; there are: ${versions.map((entry) => entry.version).join(', ')}`,
  );
}

function describe({ version, isDefault, built, kubectl, components }: KubernetesVersion): string {
  const state = built
    ? `in the cache, kubectl: ${kubectl}`
    : `not built; run: asterism components build ${version}`;
  const lines = components.map(({ installPath, hash }) => `  ${hash ?? 'not built'}  ${installPath}`);
  return [`${version}${isDefault ? ' (default)' : ''}: ${state}`, ...(built ? lines : [])].join('\n');
}
