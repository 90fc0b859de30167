import { createInterface } from 'node:readline/promises';
import { AsterismError } from '@asterism/errors/errors';

/** Asks a person. @throws AsterismError (ERR_CONFIRM) where there is none to ask */
export async function confirm(question: string, signal: AbortSignal): Promise<boolean> {
  if (process.stdin.isTTY !== true) {
    throw new AsterismError('ERR_CONFIRM', 'there is nobody to ask on standard input; say --yes to confirm');
  }
  const terminal = createInterface({ input: process.stdin, output: process.stderr });
  try {
    return /^y(es)?$/i.test((await terminal.question(`${question} [y/N] `, { signal })).trim());
  } finally {
    terminal.close();
  }
}
