import { createHash } from 'node:crypto';
import type { MasterSecret } from '@asterism/config/master-secret';
import type { ClusterState } from '@asterism/config/state';
import { parseJson } from '@asterism/config/strict';
import { type Workspace, WorkspaceError } from '@asterism/config/workspace';
import { ParseError } from '@asterism/errors/errors';
import { z } from 'zod';

/** Marks a workspace as one of `mini up`, before anything else is made there. */
export const MARKER_FILE = 'asterism-mini.json';

const schema = z.strictObject({
  schema: z.literal(1),
  /** What `mini down` may remove. */
  made: z.strictObject({
    /** uid of the cluster that was made last. */
    cluster: z.string().regex(/^[0-9a-f]{8}$/),
    /** Whether the configuration was made, or found. */
    configuration: z.boolean(),
    /** Fingerprint of the master secret that was made: another one in its place is not ours. None with an external KMS. */
    masterSecret: z
      .string()
      .regex(/^[0-9a-f]{64}$/)
      .optional(),
  }),
  /** The last run that came to its end. */
  run: z.uuid().optional(),
  date: z.iso.datetime().optional(),
  phases: z.array(z.strictObject({ phase: z.string(), milliseconds: z.int() })).default([]),
});

/** What `mini up` has made in a workspace. */
export type Marker = z.infer<typeof schema>;

/**
 * @returns undefined where `mini up` has made nothing in this workspace
 * @throws ParseError (ERR_MARKER_DAMAGED) that says how to remove the cluster without the file
 */
export async function readMarker(workspace: Workspace): Promise<Marker | undefined> {
  const text = await workspace.read(MARKER_FILE);
  try {
    return text === undefined ? undefined : parseJson(text, schema, workspace.path(MARKER_FILE));
  } catch (error) {
    if (!(error instanceof ParseError)) throw error;
    throw new ParseError(
      `${error.message}\nWhere there is no copy of the file, remove the cluster with: ` +
        `asterism --workspace ${workspace.folder} terminate, then delete the file`,
      { code: 'ERR_MARKER_DAMAGED' },
    );
  }
}

export async function writeMarker(workspace: Workspace, marker: Marker): Promise<void> {
  await workspace.create(MARKER_FILE, `${JSON.stringify(marker, null, 2)}\n`, { overwrite: true });
}

/** Tells master secrets apart and tells nothing of them. */
export function fingerprint({ key, salt }: MasterSecret): string {
  return createHash('sha256').update('asterism mini').update(key).update(salt).digest('hex');
}

/** @throws WorkspaceError (ERR_NOT_MINI) the workspace has a cluster that `mini up` did not make */
export function refuseForeign(
  workspace: Workspace,
  marker: Marker | undefined,
  state: ClusterState | undefined,
): void {
  if (state === undefined || state.uid === marker?.made.cluster) return;
  throw new WorkspaceError(
    'ERR_NOT_MINI',
    `${workspace.folder} has a cluster (${state.name}, ${state.phase}) that \`mini up\` did not make: nothing was ` +
      `changed or removed. To remove it: asterism --workspace ${workspace.folder} terminate`,
  );
}
