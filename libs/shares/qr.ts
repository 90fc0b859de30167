import qrcode from 'qrcode-generator';

/** Light modules that ISO/IEC 18004 wants around a code. */
const QUIET_ZONE = 4;

/** Dark modules of a QR code, by row and column; its quiet zone is part of it. Error correction level M. */
export function qrModules(text: string): boolean[][] {
  const code = qrcode(0, 'M');
  code.addData(text, 'Byte');
  code.make();
  const count = code.getModuleCount();
  const within = (n: number) => n >= 0 && n < count;
  const places = Array.from({ length: count + 2 * QUIET_ZONE }, (_, i) => i - QUIET_ZONE);
  return places.map((row) =>
    places.map((column) => within(row) && within(column) && code.isDark(row, column)),
  );
}

/** For a terminal: two rows a line, black on white whatever the colours of the terminal are. */
export function qrForTerminal(text: string): string {
  const modules = qrModules(text);
  const lines: string[] = [];
  for (let row = 0; row < modules.length; row += 2) {
    const line = modules[row]!.map((upper, column) => {
      const lower = modules[row + 1]?.[column] ?? false;
      return upper ? (lower ? '█' : '▀') : lower ? '▄' : ' ';
    });
    lines.push(`\x1b[30;107m${line.join('')}\x1b[0m`);
  }
  return lines.join('\n');
}

/** For print. @param title for people, a word or two in ASCII */
export function qrSvg(text: string, title: string): string {
  const modules = qrModules(text);
  const size = modules.length;
  // A rectangle for each run of dark modules in a row.
  const runs = modules.flatMap((row, y) =>
    [
      ...row
        .map((dark) => (dark ? 'X' : ' '))
        .join('')
        .matchAll(/X+/g),
    ].map(({ index, 0: { length } }) => `M${index} ${y}h${length}v1h-${length}z`),
  );
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${size} ${size + 5}" width="${size * 2}mm">
<title>${title}</title>
<rect width="${size}" height="${size + 5}" fill="#fff"/>
<path d="${runs.join('')}" fill="#000" shape-rendering="crispEdges"/>
<text x="${size / 2}" y="${size + 2}" font-size="3" text-anchor="middle" font-family="sans-serif">${title}</text>
</svg>
`;
}
