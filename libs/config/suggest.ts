import type { z } from 'zod';

/** The known word nearest to a mistyped one; undefined where none is near (more than a third of it differs). */
export function nearest(word: string, known: readonly string[]): string | undefined {
  let best: string | undefined;
  let bestDistance = Math.max(1, Math.floor(word.length / 3)) + 1;
  // A key of absurd length is nobody's typing slip, and comparing it would cost time.
  if (word.length > 64) return undefined;
  for (const candidate of known) {
    const distance = editDistance(word.toLowerCase(), candidate.toLowerCase());
    if (distance < bestDistance) {
      best = candidate;
      bestDistance = distance;
    }
  }
  return best;
}

/** Levenshtein distance: insertions, deletions and replacements of one character. */
function editDistance(a: string, b: string): number {
  let previous = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const current = [i];
    for (let j = 1; j <= b.length; j++) {
      const replace = previous[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1);
      current.push(Math.min(replace, previous[j]! + 1, current[j - 1]! + 1));
    }
    previous = current;
  }
  return previous[b.length]!;
}

/**
 * The keys that a schema allows at a path; none where the path leads to no object.
 *
 * @param value what is checked: it says which member of a union is meant
 */
export function knownKeys(schema: z.core.$ZodType, path: readonly PropertyKey[], value?: unknown): string[] {
  let at: z.core.$ZodType | undefined = unwrap(schema, value);
  let here = value;
  for (const step of path) {
    const definition: z.core.$ZodTypeDef | undefined = at?._zod.def;
    if (definition?.type === 'object') at = (definition as z.core.$ZodObjectDef).shape[String(step)];
    else if (definition?.type === 'record') at = (definition as z.core.$ZodRecordDef).valueType;
    else if (definition?.type === 'array') at = (definition as z.core.$ZodArrayDef).element;
    else at = undefined;
    if (at === undefined) return [];
    here =
      typeof here === 'object' && here !== null ? (here as Record<PropertyKey, unknown>)[step] : undefined;
    at = unwrap(at, here);
  }
  const definition = at?._zod.def;
  return definition?.type === 'object' ? Object.keys((definition as z.core.$ZodObjectDef).shape) : [];
}

/** What stands in the file, behind defaults and transformations. */
function unwrap(schema: z.core.$ZodType, value: unknown): z.core.$ZodType {
  let at = schema;
  for (;;) {
    const definition = at._zod.def;
    if ('innerType' in definition) at = definition.innerType as z.core.$ZodType;
    else if (definition.type === 'pipe') at = (definition as z.core.$ZodPipeDef).in;
    else if ('discriminator' in definition) {
      const { discriminator, options } = definition as z.core.$ZodDiscriminatedUnionDef;
      const type = (value as Record<string, unknown> | undefined)?.[discriminator];
      const meant = options.find((option) =>
        (option as z.core.$ZodType)._zod.propValues?.[discriminator]?.has(type as string),
      );
      if (meant === undefined) return at;
      at = meant as z.core.$ZodType;
    } else return at;
  }
}
