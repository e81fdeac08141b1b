// Has served: whether a trail tells of more than starts that came to nothing.
import { parseEntry } from "./hash_chain.ts";
import { openEvent } from "./sealed_event.ts";
import { listSegments, parseHeader, readLines, segmentName } from "./segment_files.ts";
import { listStubs } from "./segment_stub.ts";

/** What a start records before it has a first user, and what commands record. */
const NOT_YET: readonly unknown[] = [
  "server.started",
  "model.accepted",
  "model.refused",
  "command.changed",
  "key.changed",
];
/** The reason of a stop that no serving came before. */
export const START_FAILED = "the start failed";

/**
 * Whether a server on this folder has come so far as to have a user, then or before. It reads until an entry says so, which is one of the
 * first where one does. What cannot be read counts as such: an entry that was altered, taken out, or sealed under a key that is gone.
 * The trail may be in use.
 *
 * @param keys raw sealing keys by their ids
 * @throws Fault `unavailable` when the folder cannot be read
 */
export function hasServed(directory: string, keys: ReadonlyMap<string, Uint8Array> = new Map()): boolean {
  // Entries are taken out after months of service.
  if (listStubs(directory).length > 0) return true;
  for (const number of listSegments(directory)) {
    using file = Deno.openSync(`${directory}/${segmentName(number)}`, { read: true });
    let isHeader = true;
    for (const { bytes, end } of readLines(file)) {
      // A line on its way, or what a crash has left of one.
      if (end === "end_of_file") break;
      if (isHeader ? !parseHeader(bytes).ok : tellsOfService(bytes, keys)) return true;
      isHeader = false;
    }
  }
  return false;
}

function tellsOfService(line: Uint8Array, keys: ReadonlyMap<string, Uint8Array>): boolean {
  const entry = parseEntry(line);
  if (!entry.ok) return true;
  try {
    const { type, reason } = openEvent(keys, entry.value.seq, entry.value.event);
    const isFailedStart = type === "server.stopped" && reason === START_FAILED;
    return !isFailedStart && !NOT_YET.includes(type);
  } catch {
    return true;
  }
}
