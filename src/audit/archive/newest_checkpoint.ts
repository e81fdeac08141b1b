// Newest checkpoint: the last signed checkpoint of a trail, and the keys that verify it, as they stand on the disk.
import { decodeUtf8 } from "../../encoding/utf8.ts";
import { Fault } from "../../faults/fault.ts";
import { reasonOf } from "../segment_files.ts";
import { listCheckpointFiles, VERIFIER_KEYS_FILE } from "../signed_checkpoints.ts";

/** Some dozens of notes. */
const TAIL_BYTES = 65_536;

/**
 * The last note of the history, which nothing here verifies; undefined when there is none yet.
 *
 * @throws Fault `unavailable` when the history cannot be read
 */
export function readNewestCheckpoint(directory: string): string | undefined {
  return reading(() => {
    for (const name of listCheckpointFiles(directory).toReversed()) {
      // A last line without a line feed is on its way, or what a crash has left.
      const line = tailOf(`${directory}/${name}`).split("\n").slice(0, -1).at(-1);
      if (line !== undefined) return String(JSON.parse(line));
    }
    return undefined;
  });
}

/**
 * The verifier keys of a trail, one a line, the newest last; "" where there are none yet.
 *
 * @throws Fault `unavailable` when they cannot be read
 */
export function readVerifierKeys(directory: string): string {
  return reading(() => tailOf(`${directory}/${VERIFIER_KEYS_FILE}`));
}

function tailOf(path: string): string {
  try {
    using file = Deno.openSync(path, { read: true });
    const { size } = file.statSync();
    file.seekSync(Math.max(0, size - TAIL_BYTES), Deno.SeekMode.Start);
    const bytes = new Uint8Array(Math.min(size, TAIL_BYTES));
    const text = decodeUtf8(bytes.subarray(0, file.readSync(bytes) ?? 0));
    return text.ok ? text.value : "";
  } catch (thrown) {
    if (thrown instanceof Deno.errors.NotFound) return "";
    throw thrown;
  }
}

function reading<Value>(read: () => Value): Value {
  try {
    return read();
  } catch (cause) {
    throw new Fault("unavailable", `Cannot read the signed checkpoints: ${reasonOf(cause)}`, { cause });
  }
}
