import type { FoundCluster } from '../machines.ts';

/** Clusters of this machine for a person, one a line, and how to remove one. */
export function describeClusters(clusters: readonly FoundCluster[]): string {
  const lines = clusters.map(({ uid, name, nodes, workspace }) =>
    [
      `  ${uid}`,
      name ?? '(its record is damaged)',
      `${nodes.running} of ${nodes.total} nodes run`,
      `workspace ${workspace ?? 'not known'}`,
    ].join('  '),
  );
  return [
    ...lines,
    'Remove one with `asterism --workspace FOLDER terminate`, or where its workspace is lost: asterism local remove UID',
  ].join('\n');
}
