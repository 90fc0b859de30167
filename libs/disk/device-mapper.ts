import { open } from 'node:fs/promises';
import { runChecked } from '@asterism/runtime/program';

const TIMEOUT = { timeoutMs: 60_000 };

/** Whether the kernel has device-mapper and this process may use it: without, no disk can be mapped. */
export function hasDeviceMapper(): Promise<boolean> {
  return open('/dev/mapper/control', 'r').then(
    (file) => file.close().then(() => true),
    () => false,
  );
}

/** Names of all active mappings. Device-mapper has one list for the whole kernel, whatever the namespace. */
export async function activeMappings(): Promise<string[]> {
  if (!(await hasDeviceMapper())) return [];
  // dmsetup(8): one line "NAME<tab>(MAJOR:MINOR)" for each, or a sentence where there is none.
  const listed = await runChecked('dmsetup', ['ls'], TIMEOUT);
  return [...listed.matchAll(/^(\S+)\t\(/gm)].map((match) => match[1]!);
}

/** The targets that the kernel has or has loaded, as `crypt` and `integrity`. */
export async function mappingTargets(): Promise<string[]> {
  if (!(await hasDeviceMapper())) return [];
  const listed = await runChecked('dmsetup', ['targets'], TIMEOUT);
  return [...listed.matchAll(/^(\S+)\s+v\d/gm)].map((match) => match[1]!);
}

/** What cryptsetup maps for a LUKS2 volume with integrity: the volume, and below it the device with the tags. */
const layersOf = (name: string): string[] => [name, `${name}_dif`];

/**
 * Removes the mappings of a volume, also where only the lower one is there because cryptsetup was killed.
 * What is not there is no error.
 * @throws ProgramError something still uses the volume, for longer than dmsetup tries again (5 s)
 */
export async function removeMappings(name: string): Promise<void> {
  const active = await activeMappings();
  for (const layer of layersOf(name))
    if (active.includes(layer)) await runChecked('dmsetup', ['remove', '--retry', layer], TIMEOUT);
}
