import { CONFIG_FILE } from '@asterism/config/cluster-config';
import { AsterismError } from '@asterism/errors/errors';
import { Command } from 'commander';
import { contextOf } from '../context.ts';
import { writeImage } from '../flows/write-image.ts';
import type { LoadParts } from '../parts.ts';

export function imageCommand(load: LoadParts): Command {
  const image = new Command('image').description('The image that nodes boot, and what they will show of it.');
  image.addCommand(
    new Command('build')
      .description('Build the node image of this release; where it is up to date nothing is done.')
      .option('--refresh', "take Debian's packages as they are today, with all security updates")
      .addHelpText(
        'after',
        `
Debian's packages are those of the day of the first build until --refresh is given. New versions among them give an
image with other measurements; clusters keep the image that they were created with.

Variables: ASTERISM_DEBIAN_MIRROR, and those for proxies; see asterism components build --help.`,
      )
      .action(async (options: { refresh?: boolean }, command: Command) => {
        const { out, progress, signal } = contextOf(command);
        const parts = await load();
        const built = await progress.phase('node image', (onDetail) =>
          parts.images.build({ signal, onDetail, refresh: options.refresh === true }),
        );
        out.result(built, `${built.reference}\n${built.path}`);
      }),
  );
  image.addCommand(
    new Command('measurements')
      .description('Print the PCRs that nodes of the image will show, computed from its files.')
      .option('-w, --write-config', `write image and measurements into ${CONFIG_FILE}`, false)
      .addHelpText(
        'after',
        `
--write-config changes only the image and the measurements; comments and all other values stay.`,
      )
      .action(async ({ writeConfig }: { writeConfig: boolean }, command: Command) => {
        const { workspace, out } = contextOf(command);
        const built = await (await load()).images.built();
        if (built === undefined) {
          throw new AsterismError('ERR_NOT_BUILT', 'the node image is not built; run: asterism image build');
        }
        if (writeConfig) await writeImage(workspace, built);
        const rows = Object.entries(built.measurements).map(
          ([index, { expected, warnOnly }]) =>
            `PCR ${index.padStart(2)} ${expected}${warnOnly ? ' (warns only)' : ''}`,
        );
        out.result(
          { image: built.reference, measurements: built.measurements },
          [built.reference, ...rows, ...(writeConfig ? [`${workspace.path(CONFIG_FILE)} updated`] : [])].join(
            '\n',
          ),
        );
      }),
  );
  return image;
}
