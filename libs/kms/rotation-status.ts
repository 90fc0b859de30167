import { ParseError } from '@asterism/errors/errors';
import { z } from 'zod';

/** The ConfigMap of kube-system by which a rotation is ordered, and in which it reports. */
export const ROTATION_STATUS = 'asterism-key-rotation';

const count = z.coerce.number().int().min(0);
const text = z.string().max(4096);

const schema = z.object({
  /** Name of the order: whoever wants all keys re-wrapped (again) writes a new one. */
  order: z.string().regex(/^[0-9a-z-]{1,64}$/),
  /** Generation that all keys are to be of. */
  generation: z.coerce.number().int().min(2),
  state: z.enum(['ordered', 'running', 'done', 'failed']),
  /** Which replica is at it, and when it last said so (ISO 8601). */
  holder: text.default(''),
  renewed: text.default(''),
  total: count.default(0),
  rewrapped: count.default(0),
  alreadyDone: count.default(0),
  failed: count.default(0),
  /** What went wrong, for a person. */
  error: text.default(''),
});

export type RotationStatus = z.infer<typeof schema>;

/** @throws ParseError ERR_ROTATION_STATUS */
export function parseRotationStatus(data: unknown): RotationStatus {
  const parsed = schema.safeParse(data);
  if (parsed.success) return parsed.data;
  const where = parsed.error.issues[0]?.path.join('.') ?? '';
  throw new ParseError(`the ConfigMap ${ROTATION_STATUS} is malformed at "${where}"`, {
    code: 'ERR_ROTATION_STATUS',
  });
}

/** As the ConfigMap's data. */
export function renderRotationStatus(status: RotationStatus): Record<string, string> {
  return Object.fromEntries(
    Object.entries(status).map(([name, value]) => [name, String(value).slice(0, 4096)]),
  );
}
