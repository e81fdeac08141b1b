// Progress bar: how far a long command has come, for the person at the terminal; nothing where standard error is no terminal.
const WIDTH = 40;
const MEGABYTE = 1_000_000;
const encoder = new TextEncoder();

/** Draws itself anew at each call. */
export interface ProgressBar {
  /** @param counted what there is so much of; bytes where it is absent */
  draw(done: number, total: number, counted?: string): void;
  /** Leaves the line empty. */
  clear(): void;
}

/** Opens a bar on standard error. */
export function openProgressBar(): ProgressBar {
  const isTerminal = Deno.stderr.isTerminal();
  let drawn = "";
  const write = (text: string): void => {
    if (!isTerminal || text === drawn) return;
    drawn = text;
    Deno.stderr.writeSync(encoder.encode(text));
  };
  return {
    draw: (done, total, counted) => write(`\r${progressText(done, total, counted)}`),
    clear: () => write(drawn === "" ? "" : "\r\x1b[K"),
  };
}

/** The bar as text, without an end of the line. */
export function progressText(done: number, total: number, counted?: string): string {
  const share = total === 0 ? 1 : Math.min(1, done / total);
  const filled = Math.floor(share * WIDTH);
  const percent = `${Math.floor(share * 100)}`.padStart(3);
  const size = counted === undefined
    ? `${Math.floor(done / MEGABYTE)} of ${Math.ceil(total / MEGABYTE)} MB`
    : `${done} of ${total} ${counted}`;
  return `[${"#".repeat(filled).padEnd(WIDTH, ".")}] ${percent} %  ${size}`;
}
