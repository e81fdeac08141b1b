// Entry proof: that one entry is in the trail of a signed checkpoint, for somebody who has nothing but the key (C2SP tlog-proof).
import { decodeUtf8, encodeUtf8 } from "../../encoding/utf8.ts";
import { Fault } from "../../faults/fault.ts";
import { no, ok, type Outcome } from "../../faults/outcome.ts";
import { openTreeHead, readNewestNotes, readTrailKeys, type SignedHead } from "./checkpoint_history.ts";
import { type ChainEntry, parseEntry } from "../trail/hash_chain.ts";
import { followVouchers, openVoucher } from "../trail/key_voucher.ts";
import { CompactRange, verifyInclusion } from "../trail/merkle_tree.ts";
import {
  listSegments,
  parseHeader,
  readLines,
  type SegmentHeader,
  segmentName,
} from "../trail/segment_files.ts";
import type { NoteVerifier } from "../trail/signed_note.ts";
import { isMistake, TrailWalk } from "./trail_walk.ts";
import { parseVoucherLines, voucherLines } from "../trail/tree_head.ts";

/** What a proof shows. */
export interface ProvenEntry {
  readonly entry: ChainEntry;
  readonly head: SignedHead;
}

const TITLE = "c2sp.org/tlog-proof@v1";
const PROOF = new RegExp(
  `^${
    TITLE.replaceAll(".", "\\.")
  }\nextra (\\S+)\nindex (0|[1-9]\\d{0,15})\n((?:[A-Za-z0-9+/]{43}=\n){0,64})\n`,
);

/**
 * The proof that an entry is in the trail of its newest signed checkpoint, checked. Reads from the entry's segment on.
 *
 * @throws Fault `not_found` when no signed checkpoint has seen the entry, or when it was taken out · `unavailable` when the trail
 * is damaged or has no key beside it
 */
export function proveEntry(
  { directory, checkpointDirectory, seq }: {
    readonly directory: string;
    readonly checkpointDirectory: string;
    readonly seq: number;
  },
): string {
  const trusted = readTrailKeys(checkpointDirectory);
  const { notes, vouchers } = readNewestNotes(checkpointDirectory);
  const head = newestHead(notes, trusted);
  if (head === undefined || seq < 1 || seq > head.size) {
    throw new Fault(
      "not_found",
      `Cannot prove entry ${seq}: the newest signed checkpoint ends with entry ${head?.size ?? 0}`,
    );
  }
  const { line, hashes } = pathOf(directory, seq, head.size);
  // Who has pinned an older key can follow them to the one that signed.
  const ours = vouchers.filter((voucher) => openVoucher(voucher, trusted) !== undefined);
  const extra = encodeUtf8(`${line}\n${voucherLines(ours)}`.trimEnd()).toBase64();
  const path = hashes.map((hash) => `${Uint8Array.fromHex(hash).toBase64()}\n`).join("");
  const proof = `${TITLE}\nextra ${extra}\nindex ${seq - 1}\n${path}\n${head.note}`;
  const checked = checkProof(proof, trusted);
  if (!checked.ok) {
    throw damaged(seq, `the signed checkpoint is of other entries (${checked.reason})`);
  }
  return proof;
}

/**
 * Checks a proof and needs no trail for it.
 *
 * @param trusted who may have signed; and so may whom they have named as their successors, where the proof says so
 */
export function checkProof(
  proof: string,
  trusted: readonly NoteVerifier[],
): Outcome<ProvenEntry, "malformed" | "unknown_key" | "forged" | "not_included"> {
  const [text = "", extra = "", index = "", path = ""] = PROOF.exec(proof) ?? [];
  if (text === "") return no("malformed");
  const content = contentOf(extra);
  if (content === undefined) return no("malformed");
  const { entry, vouchers } = content;
  const known = [...trusted];
  followVouchers(vouchers, known);
  const head = openTreeHead(proof.slice(text.length), known);
  if (!head.ok) return head;
  const { size, root } = head.value;
  const hashes = path.split("\n").slice(0, -1).map((each) => Uint8Array.fromBase64(each).toHex());
  const isIncluded = entry.seq === Number(index) + 1 &&
    verifyInclusion(entry.hash, Number(index), size, hashes, root);
  return isIncluded ? ok({ entry, head: head.value }) : no("not_included");
}

/** The entry's line and, behind it, a line for each voucher. */
function contentOf(
  extra: string,
): { readonly entry: ChainEntry; readonly vouchers: readonly string[] } | undefined {
  let bytes: Uint8Array;
  try {
    bytes = Uint8Array.fromBase64(extra, { lastChunkHandling: "strict" });
  } catch {
    return undefined;
  }
  const end = bytes.indexOf(LINE_FEED);
  const entry = parseEntry(end === -1 ? bytes : bytes.subarray(0, end));
  const rest = end === -1 ? undefined : decodeUtf8(bytes.subarray(end + 1));
  if (!entry.ok || rest?.ok === false) return undefined;
  const vouchers = rest === undefined ? [] : parseVoucherLines(rest.value.split("\n"));
  return vouchers && { entry: entry.value, vouchers };
}

function newestHead(notes: readonly string[], trusted: readonly NoteVerifier[]): SignedHead | undefined {
  for (const note of notes.toReversed()) {
    const head = openTreeHead(note, trusted);
    if (head.ok) return head.value;
  }
  return undefined;
}

const LINE_FEED = 0x0a;

/** The entry's line, and the hashes beside its way to the root, from the leaf up (RFC 9162 §2.1.3.1). */
function pathOf(
  directory: string,
  seq: number,
  size: number,
): { readonly line: string; readonly hashes: readonly string[] } {
  const index = seq - 1;
  const beside = rangesBeside(index, size);
  // What is to the right: ranges that follow each other from the entry to the end.
  const ends = beside.filter(({ start }) => start > index).map(({ end }) => end);
  const right: string[] = [];
  let tree = new CompactRange();
  const walk = new TrailWalk((passed, hash) => {
    const end = ends[right.length];
    if (passed <= seq || end === undefined) return;
    tree.append(hash);
    if (passed < end) return;
    right.push(tree.root());
    tree = new CompactRange();
  });
  // What is to the left: the full subtrees of the entries before it.
  let left: string[] = [];
  let line: string | undefined;
  for (const bytes of linesFrom(directory, seq, walk)) {
    if (walk.head.seq === index) left = [...walk.range.hashes];
    const taken = walk.take(bytes);
    if (isMistake(taken)) throw damaged(seq, `${segmentName(walk.segment)}: ${taken.words}`);
    if (taken.kind === "entry" && taken.entry.seq === seq) line = textOf(bytes);
    if (line === undefined && walk.head.seq >= seq) throw takenOut(seq);
    if (walk.head.seq >= size) break;
  }
  if (line === undefined || right.length < ends.length) {
    throw damaged(seq, "the trail ends before its signed checkpoint does");
  }
  return {
    line,
    hashes: beside.map(({ start }) => (start > index ? right.shift() : left.pop()) ?? ""),
  };
}

/** The ranges of leaves beside a leaf's way to the root, from the leaf up. */
function rangesBeside(index: number, size: number): { readonly start: number; readonly end: number }[] {
  const beside: { readonly start: number; readonly end: number }[] = [];
  let [start, end] = [0, size];
  while (end - start > 1) {
    let half = 1;
    while (half * 2 < end - start) half *= 2;
    const middle = start + half;
    if (index < middle) {
      beside.unshift({ start: middle, end });
      end = middle;
    } else {
      beside.unshift({ start, end: middle });
      start = middle;
    }
  }
  return beside;
}

/** The lines from the segment on that holds an entry; the walk is told of the segments. */
function* linesFrom(directory: string, seq: number, walk: TrailWalk): Generator<Uint8Array> {
  const numbers = listSegments(directory);
  const headers = numbers.map((number) => headerOf(directory, number));
  const first = headers.findLastIndex((header) => header !== undefined && header.seq < seq);
  const header = headers[first];
  if (header === undefined) throw takenOut(seq);
  try {
    walk.believe(header);
  } catch {
    throw damaged(seq, `${segmentName(header.segment)} has a header with no tree of as many entries`);
  }
  for (const number of numbers.slice(first)) {
    walk.beginSegment(number);
    using file = Deno.openSync(`${directory}/${segmentName(number)}`, { read: true });
    for (const { bytes, end } of readLines(file)) if (end === "line_feed") yield bytes;
  }
}

/** Undefined where the segment has just been begun. */
function headerOf(directory: string, number: number): SegmentHeader | undefined {
  using file = Deno.openSync(`${directory}/${segmentName(number)}`, { read: true });
  for (const { bytes } of readLines(file)) {
    const header = parseHeader(bytes);
    return header.ok ? header.value : undefined;
  }
  return undefined;
}

function textOf(bytes: Uint8Array): string {
  const text = decodeUtf8(bytes);
  return text.ok ? text.value : "";
}

function takenOut(seq: number): Fault {
  return new Fault("not_found", `Cannot prove entry ${seq}: it was taken out of the trail`);
}

function damaged(seq: number, state: string): Fault {
  return new Fault("unavailable", `Cannot prove entry ${seq}: ${state}; verify the trail`);
}
