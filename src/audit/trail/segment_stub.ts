// Segment stub: the signed note beside a segment of which entries were taken out, so that the tree goes on over the gap.
import { createHash } from "node:crypto";
import { decodeUtf8 } from "../../encoding/utf8.ts";
import { Fault } from "../../faults/fault.ts";
import type { EventClass } from "../audit_event.ts";
import { readSmallFile } from "./read_small_file.ts";
import { reasonOf, segmentName } from "./segment_files.ts";

/** What a stub says of its segment. Hashes are SHA-256 in lower-case hexadecimal. */
export interface StubFacts {
  /** The trail's checkpoint origin. */
  readonly origin: string;
  readonly segment: number;
  /** Numbers of the segment's first and last entry; without any entry `last` is one less than `first`. */
  readonly first: number;
  readonly last: number;
  /** The earliest and the latest time of its entries (of its header, where it has none): ISO 8601 with milliseconds, UTC. */
  readonly earliest: string;
  readonly latest: string;
  /** The hash of the entry before the first. */
  readonly previous: string;
  /** The hash of the last entry. */
  readonly hash: string;
  /** The tree's compact range before and after the segment. */
  readonly rangeBefore: readonly string[];
  readonly rangeAfter: readonly string[];
  /** How many of its entries were taken out, now and before. */
  readonly removed: number;
  /** Of which nothing is left. */
  readonly classes: readonly EventClass[];
  /** What was left; undefined: the file went as a whole. */
  readonly file: { readonly sha256: string; readonly bytes: number } | undefined;
  /** SHA-256 of the file before: it may stand there still, where a crash came between stub and file. */
  readonly replaced: string;
  /** When it was made. */
  readonly made: string;
}

/** A stub as it stands beside its segment: nothing of it is believed before its note is verified. */
export interface Stub extends StubFacts {
  /** The signed note. */
  readonly note: string;
}

const TITLE = "portcullis audit stub v1";
const SHA256 = "[0-9a-f]{64}";
const TIME = "\\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\d\\.\\d{3}Z";
const RANGE = `empty|${SHA256}(?:,${SHA256})*`;
const TEXT = new RegExp(
  [
    `^${TITLE}`,
    "origin (\\S+)",
    "segment (\\d+)",
    "entries (\\d+)-(\\d+)",
    `times (${TIME}) (${TIME})`,
    `previous (${SHA256})`,
    `last (${SHA256})`,
    `range before (${RANGE})`,
    `range after (${RANGE})`,
    "removed (\\d+)",
    "classes (none|(?:security|activity)(?:,(?:security|activity))*)",
    `file (none|${SHA256} \\d+)`,
    `replaced (${SHA256})`,
    `made (${TIME})`,
    "$",
  ].join("\n"),
);
/** The text and a few signatures; two compact ranges of 53 hashes at most. */
const BYTES_MAX = 16_384;

/** The file name of a segment's stub. */
export function stubName(number: number): string {
  return segmentName(number).replace(/jsonl$/, "stub");
}

/** The text that is signed; ends with a line feed. */
export function stubText(stub: StubFacts): string {
  return [
    TITLE,
    `origin ${stub.origin}`,
    `segment ${stub.segment}`,
    `entries ${stub.first}-${stub.last}`,
    `times ${stub.earliest} ${stub.latest}`,
    `previous ${stub.previous}`,
    `last ${stub.hash}`,
    `range before ${stub.rangeBefore.join(",") || "empty"}`,
    `range after ${stub.rangeAfter.join(",") || "empty"}`,
    `removed ${stub.removed}`,
    `classes ${stub.classes.join(",") || "none"}`,
    `file ${stub.file === undefined ? "none" : `${stub.file.sha256} ${stub.file.bytes}`}`,
    `replaced ${stub.replaced}`,
    `made ${stub.made}`,
    "",
  ].join("\n");
}

/** The facts in a stub's text; undefined where `stubText` would not have written it so. */
export function parseStubText(text: string): StubFacts | undefined {
  const parts = TEXT.exec(text)?.slice(1);
  if (parts === undefined) return undefined;
  const [
    origin = "",
    segment,
    first,
    last,
    earliest = "",
    latest = "",
    previous = "",
    hash = "",
    before = "",
    after = "",
    removed,
    classes = "",
    file = "",
    replaced = "",
    made = "",
  ] = parts;
  const facts: StubFacts = {
    origin,
    segment: Number(segment),
    first: Number(first),
    last: Number(last),
    earliest,
    latest,
    previous,
    hash,
    rangeBefore: rangeOf(before),
    rangeAfter: rangeOf(after),
    removed: Number(removed),
    classes: classes.split(",").filter(isEventClass),
    file: file === "none" ? undefined : { sha256: file.slice(0, 64), bytes: Number(file.slice(65)) },
    replaced,
    made,
  };
  // Leading zeros and numbers that lose digits do not survive this comparison.
  return stubText(facts) === text && facts.last >= facts.first - 1 ? facts : undefined;
}

function isEventClass(text: string): text is EventClass {
  return text === "security" || text === "activity";
}

function rangeOf(text: string): readonly string[] {
  return text === "empty" ? [] : text.split(",");
}

/** The numbers of the stubs in a directory, in no order. */
export function listStubs(directory: string): number[] {
  const numbers: number[] = [];
  for (const { name } of Deno.readDirSync(directory)) {
    const digits = /^audit-(\d{6,})\.stub$/.exec(name)?.[1];
    if (digits !== undefined && stubName(Number(digits)) === name) numbers.push(Number(digits));
  }
  return numbers;
}

/**
 * What the stub of a segment says; undefined when there is none. Its signature is not checked here.
 *
 * @throws Fault `unavailable` when it cannot be read or is none
 */
export function readStub(directory: string, number: number): Stub | undefined {
  const name = stubName(number);
  let bytes: Uint8Array;
  try {
    bytes = readSmallFile(`${directory}/${name}`, BYTES_MAX);
  } catch (thrown) {
    if (thrown instanceof Deno.errors.NotFound) return undefined;
    throw new Fault("unavailable", `Cannot read ${name}: ${reasonOf(thrown)}`, { cause: thrown });
  }
  const note = decodeUtf8(bytes);
  // The text of a signed note ends before the last empty line (C2SP signed-note).
  const facts = note.ok ? parseStubText(note.value.slice(0, note.value.lastIndexOf("\n\n") + 1)) : undefined;
  if (!note.ok || facts?.segment !== number) {
    throw new Fault("unavailable", `Cannot read ${name}: it is no stub of this segment`);
  }
  return { ...facts, note: note.value };
}

/** SHA-256 of a file from its beginning. */
export function digestOf(file: Deno.FsFile): string {
  file.seekSync(0, Deno.SeekMode.Start);
  const digest = createHash("sha256");
  const chunk = new Uint8Array(256 * 1024);
  for (let count = file.readSync(chunk); count !== null; count = file.readSync(chunk)) {
    digest.update(chunk.subarray(0, count));
  }
  return digest.digest("hex");
}
