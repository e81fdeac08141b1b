// Note feed: the signed checkpoints of the trail, for a witness.
import { createHash } from "node:crypto";
import type { JsonValue } from "../../encoding/canonical_json.ts";
import { decodeUtf8 } from "../../encoding/utf8.ts";
import { Fault } from "../../faults/fault.ts";
import { readLines } from "../trail/segment_files.ts";
import { listCheckpointFiles } from "../trail/signed_checkpoints.ts";
import { parseNote } from "../trail/signed_note.ts";
import { parseTreeHead } from "../trail/tree_head.ts";
import type { Feed } from "./feed.ts";

/** The next byte to read of a month's file, and the line before it: by its hash the file is known again. */
export type NotePosition = {
  readonly file: string;
  readonly offset: number;
  /** Length without the line feed, and SHA-256 in hexadecimal; null before the first line. */
  readonly last: { readonly bytes: number; readonly sha256: string } | null;
};

const FILE = /^checkpoints-\d{4}-\d{2}\.jsonl$/;
/** Sorts before every file's name. */
const BEGINNING: NotePosition = { file: "", offset: 0, last: null };

/** Reads `checkpoints-YYYY-MM.jsonl`: a line is a signed note (C2SP signed-note, tlog-checkpoint) as a JSON string. Nothing stays open. */
export function openNoteFeed(checkpointDirectory: string): Feed<NotePosition, string> {
  return {
    start(from) {
      let position = BEGINNING;
      const files = from === "start" ? [] : listCheckpointFiles(checkpointDirectory);
      while (position.last === null) {
        const file = files.pop();
        if (file === undefined) break;
        for (const { next } of linesFrom(checkpointDirectory, file, 0)) position = next;
      }
      return position;
    },
    resume(kept) {
      if (!isNotePosition(kept)) return undefined;
      const { file, offset, last } = kept;
      if (last === null) return kept;
      for (const { next } of linesFrom(checkpointDirectory, file, offset - last.bytes - 1)) {
        return next.last?.bytes === last.bytes && next.last.sha256 === last.sha256 ? kept : undefined;
      }
      return undefined;
    },
    // deno-lint-ignore require-await -- the port is asynchronous
    async read(from, itemsMax) {
      const items: string[] = [];
      let next = from;
      for (const file of listCheckpointFiles(checkpointDirectory)) {
        if (file < from.file || items.length === itemsMax) continue;
        for (const line of linesFrom(checkpointDirectory, file, file === from.file ? from.offset : 0)) {
          items.push(noteOf(line.bytes, file));
          next = line.next;
          if (items.length === itemsMax) break;
        }
      }
      return { items, next, gone: 0 };
    },
  };
}

/** The whole lines from a byte on, each with the position behind it; none where there is no such file. */
function* linesFrom(
  directory: string,
  name: string,
  start: number,
): Generator<{ readonly bytes: Uint8Array; readonly next: NotePosition }> {
  using file = openIfThere(`${directory}/${name}`);
  let offset = file?.seekSync(start, Deno.SeekMode.Start) ?? 0;
  for (const { bytes, end } of file === undefined ? [] : readLines(file)) {
    if (end !== "line_feed") return;
    offset += bytes.length + 1;
    const last = { bytes: bytes.length, sha256: createHash("sha256").update(bytes).digest("hex") };
    yield { bytes, next: { file: name, offset, last } };
  }
}

function openIfThere(path: string): Deno.FsFile | undefined {
  try {
    return Deno.openSync(path, { read: true });
  } catch (thrown) {
    if (thrown instanceof Deno.errors.NotFound) return undefined;
    throw thrown;
  }
}

function noteOf(line: Uint8Array, file: string): string {
  const json = decodeUtf8(line);
  try {
    const text: unknown = json.ok ? JSON.parse(json.value) : undefined;
    const note = typeof text === "string" ? parseNote(text) : undefined;
    if (typeof text === "string" && note?.ok === true && parseTreeHead(note.value.text).ok) return text;
  } catch {
    // Said below.
  }
  throw new Fault("unavailable", `Cannot read ${file}: a line holds no checkpoint`);
}

function isNotePosition(value: JsonValue): value is NotePosition {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return false;
  const { file, offset, last } = value as Readonly<Record<string, JsonValue>>;
  if (last === null) return file === "" && offset === 0;
  if (typeof last !== "object" || Array.isArray(last)) return false;
  const { bytes, sha256 } = last as Readonly<Record<string, JsonValue>>;
  return typeof file === "string" && FILE.test(file) && typeof sha256 === "string" &&
    isCount(bytes) && isCount(offset) && offset > bytes;
}

function isCount(value: JsonValue | undefined): value is number {
  return Number.isSafeInteger(value) && Number(value) >= 0;
}
