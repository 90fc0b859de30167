import assert from 'node:assert/strict';
import { fromUtf8, toUtf8 } from './encoding.ts';
import { parseJson } from './json.ts';

export const name = 'bytes/json';

export const seeds = [
  '{"a":[1,-2.5e3,true,false,null],"b":{"c":"x\\u00e9\\n\\\\\\"","__proto__":0}}',
  ' [ "" , { } , [ ] , 0 ] ',
].map(toUtf8);

/** What is accepted means what it means to everybody else. */
export function run(input: Uint8Array): void {
  const text = fromUtf8(input);
  const value = parseJson(text);
  assert.equal(JSON.stringify(value), JSON.stringify(JSON.parse(text)));
}
