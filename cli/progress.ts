/** How long one phase of a command took. */
export interface PhaseTime {
  readonly phase: string;
  readonly milliseconds: number;
}

/** Says within a phase what is being done or waited for. */
export type Detail = (text: string) => void;

const QUIET_MS = 15_000;

/**
 * Tells a person what a long command is doing. On a terminal one line is rewritten in place; elsewhere each phase is
 * one line when it ends, and a phase that lasts says every 15 seconds what it waits for.
 */
export class Progress {
  readonly times: PhaseTime[] = [];
  readonly #stream: NodeJS.WriteStream;
  readonly #live: boolean;

  constructor(stream: NodeJS.WriteStream = process.stderr) {
    this.#stream = stream;
    this.#live = stream.isTTY === true && process.env.CI === undefined;
  }

  /** Notes a part of a phase that has ended. */
  part(name: string, milliseconds: number): void {
    const time = { phase: clean(name), milliseconds: Math.round(milliseconds) };
    this.times.push(time);
    if (!this.#live) this.#stream.write(`  ${time.phase}: ${(time.milliseconds / 1000).toFixed(1)} s\n`);
  }

  /** Runs `work` as a named phase and notes its time, whether it succeeds or not. */
  async phase<T>(name: string, work: (detail: Detail) => Promise<T>): Promise<T> {
    const started = performance.now();
    const seconds = () => ((performance.now() - started) / 1000).toFixed(1);
    let doing = '';
    const draw = () => {
      const text = `${name} (${seconds()} s)${doing === '' ? '' : `: ${doing}`}`;
      this.#stream.write(`\r\x1b[2K${text.slice(0, (this.#stream.columns ?? 80) - 1)}`);
    };
    const timer = this.#live
      ? setInterval(draw, 500)
      : setInterval(
          () => this.#stream.write(`${name}: ${doing || 'still at it'} (${seconds()} s)\n`),
          QUIET_MS,
        );
    timer.unref();
    if (this.#live) draw();
    let outcome = 'failed after';
    try {
      const result = await work((text) => {
        doing = clean(text);
        if (this.#live) draw();
      });
      outcome = 'done in';
      return result;
    } finally {
      clearInterval(timer);
      this.times.push({ phase: name, milliseconds: Math.round(performance.now() - started) });
      this.#stream.write(`${this.#live ? '\r\x1b[2K' : ''}${name}: ${outcome} ${seconds()} s\n`);
    }
  }
}

/** One line without control characters: what a peer says must not move the cursor. */
function clean(text: string): string {
  return text
    .replace(/\n[\s\S]*$/, '')
    .replace(/\p{Cc}/gu, ' ')
    .slice(0, 200);
}
