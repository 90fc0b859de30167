// Control characters (escape codes among them), format characters (those that turn the direction of text), line and
// paragraph separators.
const UNSAFE = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu;

/** Foreign text for one line of a log or a terminal: what could draw there becomes `?`, and the rest of a long text `…`. */
export function printable(text: string, maxLength: number): string {
  const line = text
    .slice(0, maxLength)
    .replaceAll(/[\t\r\n]+/g, ' ')
    .replaceAll(UNSAFE, '?');
  return text.length > maxLength ? `${line}…` : line;
}
