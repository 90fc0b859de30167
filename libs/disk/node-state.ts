import { readFile } from 'node:fs/promises';
import { fromBase64, toBase64 } from '@asterism/bytes/encoding';
import { ParseError } from '@asterism/errors/errors';
import { z } from 'zod';
import { writeFileAtomic } from './atomic-file.ts';

/** What a member must know of itself after a reboot, before any peer tells it. Not secret; on the state disk. */
export interface NodeState {
  readonly role: 'ControlPlane' | 'Worker';
  /** 32 bytes: with the measurement secret it gives the cluster id. */
  readonly measurementSalt: Uint8Array;
}

const schema = z.strictObject({
  Role: z.enum(['ControlPlane', 'Worker']),
  MeasurementSalt: z.string().max(64),
});

/** @throws ParseError the file does not say what the disk-mapper needs */
export async function readNodeState(path: string): Promise<NodeState> {
  const text = await readFile(path, 'utf8');
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new ParseError(`${path} is not JSON`, { cause });
  }
  const parsed = schema.safeParse(value);
  if (!parsed.success) throw new ParseError(`${path} is not a node state`, { cause: parsed.error });
  const measurementSalt = fromBase64(parsed.data.MeasurementSalt);
  if (measurementSalt.length !== 32) {
    throw new ParseError(`the measurement salt in ${path} has ${measurementSalt.length} bytes, not 32`);
  }
  return { role: parsed.data.Role, measurementSalt };
}

export async function writeNodeState(path: string, state: NodeState): Promise<void> {
  const value = { Role: state.role, MeasurementSalt: toBase64(state.measurementSalt) };
  await writeFileAtomic(path, `${JSON.stringify(value, null, '\t')}\n`, 0o600);
}
