import type { Readable } from 'node:stream';

/**
 * All of a stream as UTF-8 text. A peer that sends more than `maxBytes` is cut off.
 * @throws Error what broke the stream, or that the answer is too large
 */
export function boundedText(stream: Readable, maxBytes: number): Promise<string> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let length = 0;
    stream.on('data', (chunk: Buffer) => {
      length += chunk.length;
      if (length > maxBytes) stream.destroy(new Error('the answer is too large'));
      else chunks.push(chunk);
    });
    stream.on('error', reject);
    stream.on('end', () => resolve(Buffer.concat(chunks).toString('utf8')));
  });
}
