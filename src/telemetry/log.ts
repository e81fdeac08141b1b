// The log: one JSON line an event, written in the background so that no request ever waits for it.
import type { Clock } from "../time/clock.ts";
import { redact } from "./redaction.ts";

/** From chatty to grave. */
export const LOG_LEVELS = ["debug", "info", "warn", "error"] as const;

/** How grave a line is. */
export type LogLevel = typeof LOG_LEVELS[number];

/** What a line may tell besides its event. */
export type LogFields = Readonly<Record<string, string | number | boolean | null>>;

/** Writes lines; keeps them in memory (bounded) until the sink has taken them. */
export interface Log {
  write(level: LogLevel, event: string, fields?: LogFields): void;
  /** Resolves when all that was written so far has left the process. */
  flush(): Promise<void>;
}

/** Where bytes go; resolves with how many were taken. */
export type LogSink = (bytes: Uint8Array) => Promise<number>;

/** More than this waiting means that the reader of the log hangs. Lines are then dropped, as those that a sink throws on; their count is logged. */
const WAITING_CHARACTERS_MAX = 4 * 1024 * 1024;
// JSON leaves DEL, C1 controls and line separators as they are; a terminal or a line reader may act on them (ASVS V16.4.1).
const UNSAFE = /[\u007f-\u009f\u2028\u2029]/g;

const LINE_FEED = new TextEncoder().encode("\n");

/** Standard output of the process, for the log and whoever else writes lines there. */
export const standardOutput: LogSink = wholeLines((bytes) => Deno.stdout.write(bytes));

/**
 * A sink of whole lines, each with its line feed, for all who share it: one call after the other, it takes all bytes or rejects. Where
 * it rejected in the midst of a line, that line is ended before the next.
 */
export function wholeLines(sink: LogSink): LogSink {
  let isMidLine = false;
  let last: Promise<unknown> = Promise.resolve();
  return (lines) => {
    const writing = last.then(() => write(lines));
    last = writing.catch(() => {});
    return writing;
  };

  async function write(lines: Uint8Array): Promise<number> {
    if (isMidLine) await writePart(LINE_FEED);
    for (let rest = lines; rest.length > 0;) rest = rest.subarray(await writePart(rest));
    return lines.length;
  }

  async function writePart(bytes: Uint8Array): Promise<number> {
    const taken = await sink(bytes);
    if (taken > 0) isMidLine = bytes[taken - 1] !== LINE_FEED[0];
    return taken;
  }
}

/**
 * Opens a log.
 *
 * @param level lines below it are not written
 */
export function openLog(options: { level: LogLevel; clock: Clock; sink: LogSink }): Log {
  const { clock } = options;
  const sink = wholeLines(options.sink);
  const least = LOG_LEVELS.indexOf(options.level);
  const encoder = new TextEncoder();
  let waiting = "";
  let waitingLines = 0;
  let dropped = 0;
  let draining: Promise<void> | undefined;

  function line(level: LogLevel, event: string, fields: LogFields): string {
    const entry: Record<string, unknown> = { time: new Date(clock.now()).toISOString(), level, event };
    for (const name in fields) if (!(name in entry)) entry[name] = redact(name, fields[name]);
    return JSON.stringify(entry).replace(
      UNSAFE,
      (found) => `\\u${found.charCodeAt(0).toString(16).padStart(4, "0")}`,
    ) + "\n";
  }

  async function drain(): Promise<void> {
    // One turn of the event loop gathers the lines of all requests that are answered in it.
    await new Promise<void>((resolve) => setTimeout(resolve, 0));
    while (waiting !== "") {
      if (dropped > 0) waiting += line("error", "log.lines_dropped", { lines: dropped });
      const bytes = encoder.encode(waiting);
      const atStake = dropped + waitingLines;
      waiting = "";
      waitingLines = dropped = 0;
      try {
        await sink(bytes);
      } catch {
        // A full disk or a closed pipe. There is no other place to say so; audit and answers do not depend on it.
        dropped += atStake;
      }
    }
    draining = undefined;
  }

  return {
    write(level, event, fields = {}) {
      if (LOG_LEVELS.indexOf(level) < least) return;
      if (waiting.length > WAITING_CHARACTERS_MAX) {
        dropped++;
        return;
      }
      waiting += line(level, event, fields);
      waitingLines++;
      draining ??= drain();
    },
    async flush() {
      while (draining !== undefined) await draining;
    },
  };
}
