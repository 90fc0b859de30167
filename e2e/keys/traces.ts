/**
 * How a secret would look if it were written down somewhere: each of its lines, however line ends are written, and the
 * base64 of it all. Lines that are the same in every secret of its kind (the first of a PEM) are no trace.
 */
export function tracesOf(secret: string): string[] {
  const lines = secret
    .split(/\\n|\n|","/)
    .filter((line) => line.length >= 12 && !line.includes('-----') && !line.startsWith('{"'));
  return [...lines, Buffer.from(secret).toString('base64').slice(0, 60)];
}

/** @throws Error naming the place, and of the secret its first letters only */
export function assertNoTrace(place: string, text: string, secrets: readonly string[]): void {
  for (const [i, secret] of secrets.entries()) {
    for (const trace of tracesOf(secret)) {
      if (text.includes(trace))
        throw new Error(`${place} has credential ${i} in it (${trace.slice(0, 4)}...)`);
    }
  }
}
