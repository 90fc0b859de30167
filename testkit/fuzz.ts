import { ParseError } from '@asterism/errors/errors';

/** What a `*.fuzz.ts` file exports: a parser (or more) and inputs that it takes. */
export interface FuzzTarget {
  readonly name: string;
  /** Good inputs; all others are made from them. */
  readonly seeds: readonly Uint8Array[];
  /**
   * Feeds one input. ParseError says that it was refused, as it may be; every other exception is a finding, and so
   * is an assertion that does not hold of what was accepted.
   */
  run(input: Uint8Array): void | Promise<void>;
}

export interface FuzzLimits {
  /** Inputs to try; default without limit. */
  readonly runs?: number;
  /** Seconds to try for; default without limit. */
  readonly seconds?: number;
  /** Start of the random numbers: the same seed makes the same inputs. */
  readonly seed: number;
}

export interface FuzzResult {
  readonly runs: number;
  /** Inputs that were refused by ParseError. */
  readonly refused: number;
}

/** An input that a target cannot take. */
export class FuzzFinding extends Error {
  readonly input: Uint8Array;

  constructor(target: string, input: Uint8Array, run: number, cause: unknown) {
    const why = cause instanceof Error ? cause.message : String(cause);
    super(`${target}, input ${run} (${input.length} bytes): ${why}`, { cause });
    this.name = 'FuzzFinding';
    this.input = input;
  }
}

const MAX_INPUT = 1 << 16;
/** Longer than this for one input is a finding too: nothing here takes more than milliseconds on an idle machine. */
const MAX_MS = 10_000;

/**
 * Tries the seeds, then inputs mutated from them.
 * @throws FuzzFinding
 */
export async function fuzz(target: FuzzTarget, limits: FuzzLimits): Promise<FuzzResult> {
  if (target.seeds.length === 0) throw new Error(`${target.name} has no seeds`);
  const random = randomNumbers(limits.seed);
  const end = performance.now() + (limits.seconds ?? Number.POSITIVE_INFINITY) * 1000;
  let refused = 0;
  let run = 0;
  for (; run < (limits.runs ?? Number.POSITIVE_INFINITY) && performance.now() < end; run++) {
    const input = target.seeds[run]?.slice() ?? mutate(target.seeds, random);
    if (await isRefused(target, input, run)) refused++;
  }
  return { runs: run, refused };
}

/** @throws FuzzFinding */
export async function isRefused(target: FuzzTarget, input: Uint8Array, run = 0): Promise<boolean> {
  const started = performance.now();
  try {
    // A copy: the finding shows what was fed, whatever the target does to it.
    await target.run(input.slice());
  } catch (error) {
    if (error instanceof ParseError) return true;
    throw new FuzzFinding(target.name, input, run, error);
  }
  const took = performance.now() - started;
  if (took > MAX_MS) throw new FuzzFinding(target.name, input, run, new Error(`took ${Math.round(took)} ms`));
  return false;
}

type Random = (below: number) => number;

/** mulberry32: small, fast, and the same everywhere. */
function randomNumbers(seed: number): Random {
  let state = seed >>> 0;
  return (below) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return Math.floor((((t ^ (t >>> 14)) >>> 0) / 2 ** 32) * below);
  };
}

function mutate(seeds: readonly Uint8Array[], random: Random): Uint8Array {
  let input: Uint8Array = seeds[random(seeds.length)]!.slice();
  // Mostly few changes, so that what comes after the first field is reached; sometimes many.
  const changes = 1 + random(random(4) === 0 ? 16 : 3);
  for (let i = 0; i < changes; i++) input = MUTATIONS[random(MUTATIONS.length)]!(input, random, seeds);
  return input.subarray(0, MAX_INPUT);
}

const INTERESTING = [
  0, 1, 2, 0x7f, 0x80, 0xff, 0x100, 0x7fff, 0x8000, 0xffff, 0x10000, 0x7fffffff, 0x80000000, 0xffffffff,
];
const ASCII = '{}[]":,\\0123456789-eE+/= nulltruefalse\u0000';

type Mutation = (input: Uint8Array, random: Random, seeds: readonly Uint8Array[]) => Uint8Array;

const splice = (input: Uint8Array, at: number, remove: number, insert: Uint8Array): Uint8Array => {
  const out = new Uint8Array(input.length - remove + insert.length);
  out.set(input.subarray(0, at));
  out.set(insert, at);
  out.set(input.subarray(at + remove), at + insert.length);
  return out;
};

const writeInteger = (size: 2 | 4, littleEndian: boolean): Mutation => {
  return (input, random) => {
    if (input.length < size) return input;
    const view = new DataView(input.buffer, input.byteOffset);
    const at = random(input.length - size + 1);
    const value = INTERESTING[random(INTERESTING.length)]!;
    if (size === 2) view.setUint16(at, value & 0xffff, littleEndian);
    else view.setUint32(at, value, littleEndian);
    return input;
  };
};

const range = (input: Uint8Array, random: Random): [start: number, length: number] => {
  const start = random(input.length + 1);
  return [start, random(Math.min(64, input.length - start) + 1)];
};

const MUTATIONS: readonly Mutation[] = [
  (input, random) => {
    if (input.length > 0) input[random(input.length)]! ^= 1 << random(8);
    return input;
  },
  (input, random) => {
    if (input.length > 0) input[random(input.length)] = random(256);
    return input;
  },
  (input, random) => {
    if (input.length > 0) input[random(input.length)] = ASCII.charCodeAt(random(ASCII.length));
    return input;
  },
  writeInteger(2, false),
  writeInteger(2, true),
  writeInteger(4, false),
  writeInteger(4, true),
  (input, random) => {
    // Lengths that are wrong by little.
    if (input.length > 0) input[random(input.length)]! += random(2) === 0 ? 1 : 255;
    return input;
  },
  (input, random) => input.slice(0, random(input.length + 1)),
  (input, random) => splice(input, ...range(input, random), new Uint8Array()),
  (input, random) => {
    const [start, length] = range(input, random);
    return splice(input, random(input.length + 1), 0, input.slice(start, start + length));
  },
  (input, random) => {
    const insert = Uint8Array.from({ length: 1 + random(8) }, () => random(256));
    return splice(input, random(input.length + 1), 0, insert);
  },
  (input, random, seeds) => {
    const other = seeds[random(seeds.length)]!;
    const [start, length] = range(other, random);
    return splice(input, ...range(input, random), other.slice(start, start + length));
  },
];
