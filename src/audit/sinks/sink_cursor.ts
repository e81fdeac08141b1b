// Sink cursor: how far a sink has got, in a small file of its own that is whole or not there.
import { canonicalJson, type JsonValue } from "../../encoding/canonical_json.ts";
import { parseStrictJson } from "../../encoding/strict_json.ts";
import { decodeUtf8, encodeUtf8 } from "../../encoding/utf8.ts";
import { syncDirectory } from "../trail/segment_files.ts";

const DEPTH_MAX = 4;

/** The file of one sink. Paths are made once; no call keeps anything open. */
export interface SinkCursor {
  /** What was written last; undefined where nothing ever was; "unreadable" where it is no text of ours. */
  read(): JsonValue | "unreadable" | undefined;
  /**
   * Replaces it. After a crash the file holds the old text or the new one; either is good, for an old one only has entries sent
   * again. The first one is durable when this returns.
   */
  write(position: JsonValue): void;
}

/** @param name of the sink */
export function openSinkCursor(directory: string, name: string): SinkCursor {
  const path = `${directory}/${name}.cursor`;
  let exists = false;
  return {
    read() {
      let bytes: Uint8Array;
      try {
        bytes = Deno.readFileSync(path);
      } catch (thrown) {
        if (thrown instanceof Deno.errors.NotFound) return undefined;
        throw thrown;
      }
      exists = true;
      const text = decodeUtf8(bytes);
      const json = text.ok ? parseStrictJson(text.value, DEPTH_MAX) : text;
      return json.ok ? json.value : "unreadable";
    },
    write(position) {
      const beside = `${path}.new`;
      const bytes = encodeUtf8(`${canonicalJson(position)}\n`);
      {
        using file = Deno.openSync(beside, { write: true, create: true, truncate: true, mode: 0o600 });
        for (let written = 0; written < bytes.length;) written += file.writeSync(bytes.subarray(written));
        // Before the new name, or after a power loss that may name an empty file.
        file.syncDataSync();
      }
      Deno.renameSync(beside, path);
      if (!exists) syncDirectory(directory);
      exists = true;
    },
  };
}
