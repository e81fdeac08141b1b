// Stdout sink: entries as JSON lines on standard output, between the lines of the log.
import { encodeUtf8 } from "../../encoding/utf8.ts";
import type { ShippedEntry } from "./shipped_entry.ts";
import type { Sink } from "./sink.ts";

/**
 * A sink of lines `{"audit":{…}}`.
 *
 * @param write whole lines in one piece: two threads that write to one pipe could tear each other's lines
 */
export function openStdoutSink(write: (lines: Uint8Array<ArrayBuffer>) => Promise<void>): Sink<ShippedEntry> {
  return {
    acknowledges: true,
    send: (entries) => write(encodeUtf8(entries.map(({ line }) => `{"audit":${line}}\n`).join(""))),
    close: () => Promise.resolve(true),
  };
}
