import { InvalidArgumentError } from 'commander';

/** Parser of a whole number within bounds, for commander. */
export function integer(minimum: number, maximum: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (!/^\d{1,10}$/.test(text) || value < minimum || value > maximum) {
      throw new InvalidArgumentError(`a whole number from ${minimum} to ${maximum} is needed.`);
    }
    return value;
  };
}

/** Host and port of `HOST`, `HOST:PORT` or `[IPv6]:PORT`. */
export function hostAndPort(defaultPort: number): (text: string) => { host: string; port: number } {
  return (text) => {
    const match = /^(?:\[([0-9a-fA-F:.]+)\]|([^:[\]\s/]+))(?::(\d{1,5}))?$/.exec(text);
    const port = match?.[3] === undefined ? defaultPort : Number(match[3]);
    const host = match?.[1] ?? match?.[2];
    if (host === undefined || port < 1 || port > 65_535) {
      throw new InvalidArgumentError('HOST or HOST:PORT is needed (IPv6 in brackets).');
    }
    return { host, port };
  };
}

/** Parser of an option that may be given again and again. */
export const repeated = (value: string, before: readonly string[] = []): readonly string[] => [
  ...before,
  value,
];

/** 32 bytes as 64 hexadecimal digits. */
export function hex32(text: string): string {
  if (!/^[0-9a-fA-F]{64}$/.test(text)) throw new InvalidArgumentError('64 hexadecimal digits are needed.');
  return text.toLowerCase();
}
