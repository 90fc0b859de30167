/** Parts of field names, in lower case without `_`, `-` and `.`, whose values are for nobody's eyes. */
const SECRET_NAME =
  /secret|token|passw|passphrase|credential|authorization|kubeconfig|kmsuri|privatekey|(master|disk|data|client|certificate|volume|api|access|account)key|keydata|^pin$/;

/** Secrets within a text: the query of a KMS URI may hold the master secret or credentials, that of a storage URI of v2.6
 * credentials, and a PEM block a private key. */
const SECRET_TEXT = [
  /(?<=(?:kms|storage):\/\/[^\s?"']{0,200}\?)[^\s"']+/g,
  /(?<=-----BEGIN [A-Z0-9 ]{0,30}PRIVATE KEY-----)[^-]*/g,
  /(?<=client-key-data["']?: ?["']?)[A-Za-z0-9+/=]+/g,
];

export const CENSORED = '[secret]';
const MAX_DEPTH = 8;
/** Values of one log line; what is beyond them is not worth reading, and an object can have itself within. */
const MAX_VALUES = 2000;
const MAX_TEXT = 16 * 1024;

/**
 * A copy of a log line's fields, as plain values, without what must not be read there: fields with the name of a
 * secret at any depth, bytes whatever their name (keys, secrets and tickets are bytes here), and secrets within texts.
 * It never throws, and its size is bounded.
 */
export function redact(fields: object): Record<string, unknown> {
  return new Redaction().fields(fields, 0);
}

class Redaction {
  #left = MAX_VALUES;

  fields(source: object, depth: number): Record<string, unknown> {
    const copy: Record<string, unknown> = {};
    for (const name of Object.keys(source)) {
      if (this.#left <= 0) {
        copy['…'] = 'more is left out';
        break;
      }
      // Own names only, also for `__proto__`.
      Object.defineProperty(copy, name, {
        value: this.#field(source as Record<string, unknown>, name, depth),
        enumerable: true,
        configurable: true,
        writable: true,
      });
    }
    return copy;
  }

  #field(source: Record<string, unknown>, name: string, depth: number): unknown {
    try {
      const value = source[name];
      if (value === undefined || value === null || value === '') return value;
      return SECRET_NAME.test(name.toLowerCase().replace(/[-_.]/g, ''))
        ? CENSORED
        : this.#value(value, depth);
    } catch {
      return '[unreadable]';
    }
  }

  #value(value: unknown, depth: number): unknown {
    this.#left--;
    if (typeof value === 'string') return censorText(value);
    if (typeof value === 'bigint') return String(value);
    if (typeof value !== 'object' || value === null) return value;
    if (ArrayBuffer.isView(value) || value instanceof ArrayBuffer) return `[${value.byteLength} bytes]`;
    if (depth >= MAX_DEPTH) return '[too deep]';
    if (value instanceof Error) return this.#error(value, depth + 1);
    if (Array.isArray(value)) {
      const items = value.slice(0, Math.max(0, this.#left)).map((item) => this.#value(item, depth + 1));
      return items.length < value.length ? [...items, '… more is left out'] : items;
    }
    if (value instanceof Map || value instanceof Set) return `[${value.constructor.name} of ${value.size}]`;
    const { toJSON } = value as { toJSON?: unknown };
    if (typeof toJSON === 'function') return this.#value(toJSON.call(value), depth + 1);
    return this.fields(value, depth + 1);
  }

  /** As pino's own serializer does it: the parts that are not enumerable, and the fields that are. */
  #error(error: Error, depth: number): Record<string, unknown> {
    const { name, message, stack, cause } = error;
    const known = { type: error.constructor?.name ?? name, message, stack };
    return {
      ...this.fields(known, depth),
      ...this.fields(Object.fromEntries(Object.entries(error).filter(([key]) => !(key in known))), depth),
      ...(cause === undefined ? {} : { cause: this.#value(cause, depth) }),
      ...(error instanceof AggregateError ? { errors: this.#value(error.errors, depth) } : {}),
    };
  }
}

/** The text without the secrets that it can be told to hold, cut to a bound. */
export function censorText(text: string): string {
  const short = text.length > MAX_TEXT ? `${text.slice(0, MAX_TEXT)}…` : text;
  return SECRET_TEXT.reduce((said, secret) => said.replace(secret, CENSORED), short);
}
