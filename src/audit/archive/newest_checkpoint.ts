// Newest checkpoint: the last signed checkpoint of a trail, as it stands on the disk.
import { decodeUtf8 } from "../../encoding/utf8.ts";
import { Fault } from "../../faults/fault.ts";
import { reasonOf } from "../trail/segment_files.ts";
import { listCheckpointFiles } from "../trail/signed_checkpoints.ts";

/** Some dozens of notes. */
const TAIL_BYTES = 65_536;
const LINE_FEED = 0x0a;

/**
 * The last note of the history, which nothing here verifies; undefined when there is none yet.
 *
 * @throws Fault `unavailable` when the history cannot be read
 */
export function readNewestCheckpoint(directory: string): string | undefined {
  try {
    for (const name of listCheckpointFiles(directory).toReversed()) {
      const line = lastLineOf(`${directory}/${name}`);
      if (line !== undefined) return String(JSON.parse(line));
    }
    return undefined;
  } catch (cause) {
    throw new Fault("unavailable", `Cannot read the signed checkpoints: ${reasonOf(cause)}`, { cause });
  }
}

/** A last line without a line feed is on its way, or what a crash has left. */
function lastLineOf(path: string): string | undefined {
  using file = Deno.openSync(path, { read: true });
  const { size } = file.statSync();
  file.seekSync(Math.max(0, size - TAIL_BYTES), Deno.SeekMode.Start);
  const bytes = new Uint8Array(Math.min(size, TAIL_BYTES));
  const tail = bytes.subarray(0, file.readSync(bytes) ?? 0);
  const end = tail.lastIndexOf(LINE_FEED);
  if (end === -1) return undefined;
  const line = decodeUtf8(tail.subarray(tail.lastIndexOf(LINE_FEED, end - 1) + 1, end));
  return line.ok ? line.value : undefined;
}
