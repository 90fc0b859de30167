import type { Parts } from './parts.ts';
import { buildProgram } from './program.ts';

/** Runs a command within this process, with parts of a test's own. */
export async function command(
  parts: Parts,
  args: readonly string[],
): Promise<{ stdout: string; stderr: string; exitCode: unknown }> {
  const said = { stdout: '', stderr: '' };
  const before = process.exitCode;
  const restore = (['stdout', 'stderr'] as const).map((name) => {
    const stream = process[name];
    const { write } = stream;
    stream.write = ((chunk: string | Uint8Array, ...rest: never[]) => {
      // Bytes are what the test runner tells its parent meanwhile.
      if (typeof chunk !== 'string') return write.call(stream, chunk, ...rest);
      said[name] += chunk;
      return true;
    }) as typeof write;
    return () => {
      stream.write = write;
    };
  });
  try {
    await buildProgram(async () => parts).parseAsync([...args], { from: 'user' });
    return { ...said, exitCode: process.exitCode ?? 0 };
  } finally {
    for (const undo of restore) undo();
    process.exitCode = before;
  }
}
