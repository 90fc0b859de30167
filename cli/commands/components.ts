import { Command } from 'commander';
import { contextOf } from '../context.ts';
import { EXIT } from '../exit-codes.ts';
import { chooseVersion, VERSION_HELP } from '../flows/kubernetes-version.ts';
import type { KubernetesVersion, LoadParts } from '../parts.ts';

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
      .description(
        'Bring every component of a version into the cache; what is there and right by its hash is kept.',
      )
      .argument('[version]', `${VERSION_HELP} (default: the newest)`)
      .option(
        '--official',
        'download what the Kubernetes project publishes, by pinned SHA-256, instead of building it',
      )
      .option(
        '--refresh',
        'make the images of kube-proxy and flannel anew, of Debian packages as they are today',
      )
      .addHelpText(
        'after',
        `
Only the images of kube-proxy and flannel have Debian packages in them. All other components have pinned bytes, which
--refresh does not change: they are mended by a new version of the catalogue. A cluster keeps the components that it was
initialised with.

Variables of the environment:
  ASTERISM_COMPONENTS_MIRROR  a folder or an http(s) URL whose files are named by their SHA-256: what it has is taken
                              from there, by pinned hash, before anything is downloaded or built
  ASTERISM_DEBIAN_MIRROR      an address that has debian/ and debian-security/ below it (default: http://deb.debian.org)
  GOPROXY                     where Go modules and the Go compiler come from (default: https://proxy.golang.org,direct)
  HTTPS_PROXY, HTTP_PROXY, NO_PROXY (or in lower case)
                              the proxy for all of these, and what is reached without it`,
      )
      .action(
        async (
          given: string | undefined,
          options: { official?: boolean; refresh?: boolean },
          command: Command,
        ) => {
          const { out, progress, signal } = contextOf(command);
          const parts = await load();
          const { version } = await chooseVersion(parts.components, given);
          await progress.phase(`components of ${version}`, (onDetail) =>
            parts.components.provide(version, {
              signal,
              onDetail,
              refresh: options.refresh === true,
              ...(options.official ? { official: 'only' } : {}),
            }),
          );
          const after = await chooseVersion(parts.components, version);
          out.result(after, describe(after));
        },
      ),
  );
  components.addCommand(
    new Command('verify')
      .description('Hash every component of a version in the cache and compare with what is expected.')
      .argument('[version]', `${VERSION_HELP} (default: the newest)`)
      .action(async (given: string | undefined, _options: object, command: Command) => {
        const { out } = contextOf(command);
        const parts = await load();
        const { version } = await chooseVersion(parts.components, given);
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

function describe({ version, isDefault, built, kubectl, components }: KubernetesVersion): string {
  const state = built
    ? `in the cache, kubectl: ${kubectl}`
    : `not built; run: asterism components build ${version}`;
  const lines = components.map(({ installPath, hash }) => `  ${hash ?? 'not built'}  ${installPath}`);
  return [`${version}${isDefault ? ' (default)' : ''}: ${state}`, ...(built ? lines : [])].join('\n');
}
