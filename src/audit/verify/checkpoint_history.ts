// Checkpoint history: the signed checkpoints of a trail, and those that somebody has kept elsewhere.
import { decodeUtf8 } from "../../encoding/utf8.ts";
import { Fault } from "../../faults/fault.ts";
import { no, ok, type Outcome } from "../../faults/outcome.ts";
import { decodeCheckpoint } from "../trail/checkpoint.ts";
import { readSmallFile } from "../trail/read_small_file.ts";
import { readLines, reasonOf } from "../trail/segment_files.ts";
import { type NoteVerifier, openNote, parseNote, parseVerifierKey } from "../trail/signed_note.ts";
import { listCheckpointFiles, VERIFIER_KEYS_FILE } from "../trail/signed_checkpoints.ts";
import { parseTreeHead, type TreeHead } from "../trail/tree_head.ts";

/** Some thousand keys. */
const KEYS_BYTES_MAX = 1024 * 1024;

/** A note of the history and where it stands. */
export interface HistoryNote {
  readonly file: string;
  /** From 1. */
  readonly line: number;
  /** Undefined when the line is no JSON string. */
  readonly note: string | undefined;
}

/**
 * All notes of a trail's history, month by month. A last line without a line feed is on its way, or what a crash has left; one
 * with zero bytes is what a power cut has.
 *
 * @throws Fault `unavailable` when it cannot be read
 */
export function* readHistory(directory: string): Generator<HistoryNote> {
  let torn: HistoryNote | undefined;
  for (const name of historyFiles(directory)) {
    using file = Deno.openSync(`${directory}/${name}`, { read: true });
    let line = 0;
    for (const { bytes, end } of readLines(file)) {
      if (end === "end_of_file") break;
      if (torn !== undefined) yield torn; // it was not the last one
      const next = { file: name, line: ++line, note: noteOf(bytes) };
      torn = bytes.includes(0) ? next : undefined;
      if (torn === undefined) yield next;
    }
  }
}

/** The newest notes of a history, and all vouchers in it; nothing is verified. */
export interface NewestNotes {
  /** The newest last; a few. */
  readonly notes: readonly string[];
  /** The oldest first. */
  readonly vouchers: readonly string[];
}

const NEWEST_MAX = 16;

/**
 * What a proof is made of. There may be a million notes: to verify all the others would take minutes.
 *
 * @throws Fault `unavailable` when it cannot be read
 */
export function readNewestNotes(directory: string): NewestNotes {
  const notes: string[] = [];
  const vouchers: string[] = [];
  for (const { note = "" } of readHistory(directory)) {
    notes.push(note);
    if (notes.length > NEWEST_MAX) notes.shift();
    vouchers.push(...vouchersIn(note));
  }
  return { notes, vouchers };
}

/** The vouchers in a note, whoever signed it. */
export function vouchersIn(note: string): readonly string[] {
  return note.includes("\nvoucher ") ? treeHeadOf(note)?.vouchers ?? [] : [];
}

function historyFiles(directory: string): string[] {
  try {
    return listCheckpointFiles(directory);
  } catch (thrown) {
    if (thrown instanceof Deno.errors.NotFound) return [];
    throw new Fault("unavailable", `Cannot list the signed checkpoints: ${reasonOf(thrown)}`, {
      cause: thrown,
    });
  }
}

function noteOf(line: Uint8Array): string | undefined {
  const text = decodeUtf8(line);
  if (!text.ok) return undefined;
  try {
    const note: unknown = JSON.parse(text.value);
    return typeof note === "string" ? note : undefined;
  } catch {
    return undefined;
  }
}

/** Verifier keys, one a line; lines that are empty or begin with # are passed over. */
export function parseVerifierKeys(text: string): Outcome<readonly NoteVerifier[], "not_verifier_keys"> {
  const keys: NoteVerifier[] = [];
  for (const line of text.split("\n").map((each) => each.trim())) {
    if (line === "" || line.startsWith("#")) continue;
    const key = parseVerifierKey(line);
    if (!key.ok) return no("not_verifier_keys");
    keys.push(key.value);
  }
  return keys.length === 0 ? no("not_verifier_keys") : ok(keys);
}

/**
 * The keys that stand beside a trail; none when there is no such file: then nothing is signed by anybody known.
 *
 * @throws Fault `unavailable` when it cannot be read or holds something else
 */
export function readTrailKeys(directory: string): readonly NoteVerifier[] {
  let bytes: Uint8Array;
  try {
    bytes = readSmallFile(`${directory}/${VERIFIER_KEYS_FILE}`, KEYS_BYTES_MAX);
  } catch (thrown) {
    if (thrown instanceof Deno.errors.NotFound) return [];
    throw new Fault("unavailable", `Cannot read ${VERIFIER_KEYS_FILE}: ${reasonOf(thrown)}`, {
      cause: thrown,
    });
  }
  const text = decodeUtf8(bytes);
  const keys = text.ok ? parseVerifierKeys(text.value) : text;
  if (keys.ok) return keys.value;
  throw new Fault(
    "unavailable",
    `Cannot use ${VERIFIER_KEYS_FILE}: it holds something else than verifier keys`,
  );
}

/** A checkpoint with a signature of a key that is trusted. */
export interface SignedHead extends TreeHead {
  readonly note: string;
  /** Those of the trusted keys that signed it. */
  readonly signedBy: readonly NoteVerifier[];
}

/** Opens a checkpoint that one of the keys must have signed. */
export function openTreeHead(
  note: string,
  trusted: readonly NoteVerifier[],
): Outcome<SignedHead, "malformed" | "unknown_key" | "forged"> {
  const opened = openNote(note, trusted);
  if (!opened.ok) return opened;
  const head = parseTreeHead(opened.value.text);
  return head.ok ? ok({ ...head.value, note, signedBy: opened.value.signedBy }) : no("malformed");
}

/** A checkpoint that somebody has kept: what the trail was then. */
export interface KeptHead {
  /** Undefined where only the trail's own `checkpoint.json` was kept. */
  readonly origin: string | undefined;
  readonly size: number;
  readonly root: string;
}

/** The checkpoints in what was kept: a signed note, lines of the history, or a `checkpoint.json`. Their signatures are not verified. */
export function parseKeptHeads(bytes: Uint8Array): Outcome<readonly KeptHead[], "no_checkpoint"> {
  const checkpoint = decodeCheckpoint(bytes);
  if (checkpoint.ok) {
    const { seq, root } = checkpoint.value;
    return ok([{ origin: undefined, size: seq, root }]);
  }
  const text = decodeUtf8(bytes);
  if (!text.ok) return no("no_checkpoint");
  const notes = text.value.startsWith('"')
    ? text.value.trimEnd().split("\n").map((line) => noteOf(new TextEncoder().encode(line)))
    : [text.value];
  const heads: KeptHead[] = [];
  for (const note of notes) {
    const head = note === undefined ? undefined : treeHeadOf(note);
    if (head === undefined) return no("no_checkpoint");
    heads.push(head);
  }
  return heads.length === 0 ? no("no_checkpoint") : ok(heads);
}

/** What a note says, whoever signed it. */
export function treeHeadOf(note: string): TreeHead | undefined {
  const parsed = parseNote(note);
  const head = parsed.ok ? parseTreeHead(parsed.value.text) : undefined;
  return head?.ok === true ? head.value : undefined;
}
