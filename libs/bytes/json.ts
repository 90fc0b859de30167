import { ParseError } from '@asterism/errors/errors';

const MAX_DEPTH = 16;
const SCALAR = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null/y;
const SPACE = /[ \t\n\r]*/y;

/**
 * JSON (RFC 8259) from a stranger: like JSON.parse, but a name that occurs twice in an object is refused, because
 * readers differ in which of the two they take, and nesting is limited to 16. Objects have no prototype.
 *
 * @throws ParseError with the offset in characters
 */
export function parseJson(text: string): unknown {
  const parser = new Parser(text);
  const value = parser.value(0);
  parser.end();
  return value;
}

class Parser {
  readonly #text: string;
  #at = 0;

  constructor(text: string) {
    this.#text = text;
  }

  #fail(why: string): never {
    throw new ParseError(`not JSON: ${why} (at character ${this.#at})`, { offset: this.#at });
  }

  /** The next character that is no white space; '' at the end. */
  #next(): string {
    const first = this.#text[this.#at];
    if (first !== undefined && first > ' ') return first;
    SPACE.lastIndex = this.#at;
    SPACE.test(this.#text);
    this.#at = SPACE.lastIndex;
    return this.#text[this.#at] ?? '';
  }

  #take(expected: string): void {
    if (this.#next() !== expected) this.#fail(`'${expected}' is missing`);
    this.#at++;
  }

  end(): void {
    if (this.#next() !== '') this.#fail('there is more after the value');
  }

  value(depth: number): unknown {
    if (depth > MAX_DEPTH) this.#fail(`nested deeper than ${MAX_DEPTH}`);
    switch (this.#next()) {
      case '{':
        return this.#object(depth);
      case '[':
        return this.#array(depth);
      case '"':
        return this.#string();
      default:
        return this.#scalar();
    }
  }

  #object(depth: number): Record<string, unknown> {
    const object: Record<string, unknown> = Object.create(null);
    this.#take('{');
    if (this.#next() === '}') {
      this.#at++;
      return object;
    }
    for (;;) {
      if (this.#next() !== '"') this.#fail('a name is missing');
      const name = this.#string();
      if (name in object) this.#fail('a name occurs twice');
      this.#take(':');
      object[name] = this.value(depth + 1);
      if (this.#next() !== ',') break;
      this.#at++;
    }
    this.#take('}');
    return object;
  }

  #array(depth: number): unknown[] {
    const array: unknown[] = [];
    this.#take('[');
    if (this.#next() === ']') {
      this.#at++;
      return array;
    }
    for (;;) {
      array.push(this.value(depth + 1));
      if (this.#next() !== ',') break;
      this.#at++;
    }
    this.#take(']');
    return array;
  }

  #string(): string {
    const start = this.#at;
    let end = start;
    do {
      end = this.#text.indexOf('"', end + 1);
      if (end === -1) this.#fail('a string does not end');
    } while (this.#isEscaped(end));
    try {
      // Judges escapes and control characters.
      const value: string = JSON.parse(this.#text.slice(start, end + 1));
      this.#at = end + 1;
      return value;
    } catch {
      return this.#fail('a string has an unknown escape or a control character');
    }
  }

  /** Whether an odd number of backslashes stands before. */
  #isEscaped(at: number): boolean {
    let first = at;
    while (this.#text[first - 1] === '\\') first--;
    return (at - first) % 2 === 1;
  }

  #scalar(): unknown {
    SCALAR.lastIndex = this.#at;
    const found = SCALAR.exec(this.#text)?.[0];
    if (found === undefined) this.#fail('a value is missing');
    this.#at += found.length;
    return JSON.parse(found);
  }
}
