import { CONFIG_FILE } from '@asterism/config/cluster-config';
import { withImage } from '@asterism/config/edit';
import { type Workspace, WorkspaceError } from '@asterism/config/workspace';
import type { NodeImage } from '../parts.ts';

/** Puts an image and its measurements into the configuration of a workspace. */
export async function writeImage(workspace: Workspace, image: NodeImage): Promise<void> {
  const before = await workspace.read(CONFIG_FILE);
  if (before === undefined) {
    throw new WorkspaceError(
      'ERR_NO_CONFIG',
      `${workspace.path(CONFIG_FILE)} does not exist; make it with: asterism config generate local`,
    );
  }
  const after = withImage(before, image.reference, image.measurements);
  if (after !== before) await workspace.create(CONFIG_FILE, after, { overwrite: true });
}
