// Note feed: the signed checkpoints of the trail, for a witness.
import type { JsonValue } from "../../encoding/canonical_json.ts";
import { decodeUtf8 } from "../../encoding/utf8.ts";
import { Fault } from "../../faults/fault.ts";
import { readLines } from "../segment_files.ts";
import { listCheckpointFiles } from "../signed_checkpoints.ts";
import { parseNote } from "../signed_note.ts";
import { parseTreeHead } from "../tree_head.ts";
import type { Feed } from "./feed.ts";

/** The next byte to read of a month's file. */
export type NotePosition = { readonly file: string; readonly offset: number };

const FILE = /^checkpoints-\d{4}-\d{2}\.jsonl$/;
/** Sorts before every file's name. */
const BEGINNING: NotePosition = { file: "", offset: 0 };

/** Reads `checkpoints-YYYY-MM.jsonl`: a line is a signed note (C2SP signed-note, tlog-checkpoint) as a JSON string. Nothing stays open. */
export function openNoteFeed(checkpointDirectory: string): Feed<NotePosition, string> {
  return {
    start(from) {
      const name = from === "start" ? undefined : listCheckpointFiles(checkpointDirectory).at(-1);
      if (name === undefined) return BEGINNING;
      using file = Deno.openSync(`${checkpointDirectory}/${name}`, { read: true });
      let offset = 0;
      for (const { bytes, end } of readLines(file)) if (end === "line_feed") offset += bytes.length + 1;
      return { file: name, offset };
    },
    resume(kept) {
      if (!isNotePosition(kept)) return undefined;
      if (kept.file === "") return kept;
      const size = sizeOf(`${checkpointDirectory}/${kept.file}`);
      return size === undefined || size < kept.offset ? undefined : kept;
    },
    // deno-lint-ignore require-await -- the port is asynchronous
    async read(from, itemsMax) {
      const items: string[] = [];
      let next = from;
      for (const name of listCheckpointFiles(checkpointDirectory)) {
        if (name < from.file || items.length === itemsMax) continue;
        if (name > next.file) next = { file: name, offset: 0 };
        using file = Deno.openSync(`${checkpointDirectory}/${name}`, { read: true });
        file.seekSync(next.offset, Deno.SeekMode.Start);
        for (const { bytes, end } of readLines(file)) {
          if (end !== "line_feed" || items.length === itemsMax) break; // not whole yet
          items.push(noteOf(bytes, name));
          next = { file: name, offset: next.offset + bytes.length + 1 };
        }
      }
      return { items, next, gone: 0 };
    },
  };
}

function sizeOf(path: string): number | undefined {
  try {
    return Deno.statSync(path).size;
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
  const { file, offset } = value as Readonly<Record<string, JsonValue>>;
  return typeof file === "string" && (file === "" || FILE.test(file)) && typeof offset === "number" &&
    Number.isSafeInteger(offset) && offset >= 0;
}
