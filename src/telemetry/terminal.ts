// Terminal: lines for the person who started the program; never for a log reader.

/** To standard output. */
export function printLine(line: string): void {
  // deno-lint-ignore no-console -- this is the one place for it, besides the log
  console.log(line);
}

/** To standard error. */
export function printError(line: string): void {
  // deno-lint-ignore no-console -- see above
  console.error(line);
}
