// Has served: whether a trail tells of more than starts that came to nothing.
import { parseEntry } from "./hash_chain.ts";
import { listSegments, readLines, segmentName } from "./segment_files.ts";

/** What a start records before it has a first user, and what commands record. */
const NOT_YET: readonly unknown[] = [
  "server.started",
  "model.accepted",
  "model.refused",
  "command.changed",
];
/** The reason of a stop that no serving came before. */
export const START_FAILED = "the start failed";

/**
 * Whether a server on this folder has come so far as to have a user, then or before. It reads until an entry says so, which is one of the
 * first where one does. An entry that cannot be read counts as such. The trail may be in use.
 *
 * @throws Fault `unavailable` when the folder cannot be read
 */
export function hasServed(directory: string): boolean {
  for (const number of listSegments(directory)) {
    using file = Deno.openSync(`${directory}/${segmentName(number)}`, { read: true });
    for (const { bytes, end } of readLines(file)) {
      // A line on its way, or what a crash has left of one.
      if (end === "end_of_file") break;
      const entry = parseEntry(bytes);
      if (!entry.ok) return true;
      const { type, reason } = entry.value.event;
      const isFailedStart = type === "server.stopped" && reason === START_FAILED;
      if (!isFailedStart && !NOT_YET.includes(type)) return true;
    }
  }
  return false;
}
