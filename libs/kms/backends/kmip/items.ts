import { ParseError } from '@asterism/errors/errors';
import type { Item, ItemType, Structure, ValueOf } from './ttlv.ts';

export const structure = (tag: number, ...value: readonly (Item | undefined)[]): Structure => ({
  tag,
  type: 'structure',
  value: value.filter((item) => item !== undefined),
});
export const integer = (tag: number, value: number): Item => ({ tag, type: 'integer', value });
export const enumeration = (tag: number, value: number): Item => ({ tag, type: 'enumeration', value });
export const text = (tag: number, value: string): Item => ({ tag, type: 'textString', value });
export const bytes = (tag: number, value: Uint8Array): Item => ({ tag, type: 'byteString', value });

/** All items of a tag. @throws ParseError one of them has another type */
export function every<T extends ItemType>(parent: Structure, tag: number, type: T): ValueOf<T>[] {
  return parent.value
    .filter((item) => item.tag === tag)
    .map((item) => {
      if (item.type !== type)
        throw new ParseError(`${hex(tag)} in ${hex(parent.tag)} is a ${item.type}, not a ${type}`);
      return item.value as ValueOf<T>;
    });
}

/** The one item of a tag, if there is one. @throws ParseError there are two, or it has another type */
export function optional<T extends ItemType>(
  parent: Structure,
  tag: number,
  type: T,
): ValueOf<T> | undefined {
  const [value, second] = every(parent, tag, type);
  if (second !== undefined) throw new ParseError(`${hex(parent.tag)} has two ${hex(tag)}`);
  return value;
}

/** The one item of a tag. @throws ParseError there is none, there are two, or it has another type */
export function required<T extends ItemType>(parent: Structure, tag: number, type: T): ValueOf<T> {
  const value = optional(parent, tag, type);
  if (value === undefined) throw new ParseError(`${hex(parent.tag)} has no ${hex(tag)}`);
  return value;
}

/** Structures of a tag. */
export function structuresOf(parent: Structure, tag: number): Structure[] {
  return every(parent, tag, 'structure').map((value) => ({ tag, type: 'structure', value }));
}

/** The one structure of a tag. @throws ParseError there is none, or there are two */
export function structureOf(parent: Structure, tag: number): Structure {
  return { tag, type: 'structure', value: required(parent, tag, 'structure') };
}

const hex = (tag: number) => `0x${tag.toString(16)}`;
