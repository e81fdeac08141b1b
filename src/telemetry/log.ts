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

/** Standard output of the process. */
export const standardOutput: LogSink = (bytes) => Deno.stdout.write(bytes);

/**
 * Opens a log.
 *
 * @param level lines below it are not written
 */
export function openLog(options: { level: LogLevel; clock: Clock; sink: LogSink }): Log {
  const { clock, sink } = options;
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
      let bytes = encoder.encode(waiting);
      const atStake = dropped + waitingLines;
      waiting = "";
      waitingLines = dropped = 0;
      try {
        while (bytes.length > 0) bytes = bytes.subarray(await sink(bytes));
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
