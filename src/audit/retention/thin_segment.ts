// Thin segment: takes old entries out of a closed segment, in steps after each of which the trail is whole. Runs in the retention worker.
import { decodeUtf8, encodeUtf8 } from "../../encoding/utf8.ts";
import { Fault } from "../../faults/fault.ts";
import type { EventClass } from "../audit_event.ts";
import { classOf } from "../event_class.ts";
import type { ChainEntry } from "../trail/hash_chain.ts";
import { removedLines } from "../trail/removed_line.ts";
import { isSealed } from "../trail/sealed_event.ts";
import {
  listSegments,
  parseHeader,
  readLines,
  reasonOf,
  type SegmentHeader,
  segmentName,
  syncDirectory,
} from "../trail/segment_files.ts";
import { digestOf, readStub, type Stub, type StubFacts, stubName } from "../trail/segment_stub.ts";
import { isMistake, TrailWalk } from "../verify/trail_walk.ts";

/** Entries of a class up to this moment may go: milliseconds since 1970. */
export type Horizon = Readonly<Record<EventClass, number>>;

/** A segment of which entries are about to be taken out. What is to be left of it stands beside it. */
export interface Thinning {
  readonly facts: Omit<StubFacts, "made">;
  /** How many entries go now. */
  readonly removed: number;
  /** The note of the stub that allowed what went before; its signature is for the caller to verify. */
  readonly formerNote: string | undefined;
}

const CLASSES: readonly EventClass[] = ["activity", "security"];
const DAY_MS = 86_400_000;
const PIECE_CHARACTERS = 256 * 1024;

/**
 * Reads a closed segment from its beginning to its end, checks it, and writes beside it what is to be left; that is durable
 * when this returns. Nothing has been taken out yet.
 *
 * @param mayGo whether the file may go as a whole when nothing is left: only behind segments that have gone, or proofs
 * for older entries would lack hashes
 * @returns undefined when there is nothing to take out
 * @throws Fault `unavailable` when the segment is damaged: it stays as it is, as evidence
 */
export function prepareThinning(
  directory: string,
  segment: number,
  horizon: Horizon,
  mayGo: boolean,
): Thinning | undefined {
  const path = pathOf(directory, segment);
  using file = Deno.openSync(path, { read: true });
  const header = readHeader(file, segment);
  // No entry is of a later day than the header, but for those of one batch: the header tells cheaply what cannot be due.
  const old = CLASSES.filter((each) => startOfDay(header.time) + DAY_MS <= horizon[each]);
  if (old.length === 0) return undefined;
  const next = nextHeader(directory, segment + 1);
  // A clock that stood at 1970 does not make entries old: the segment behind tells when it had been put right.
  const due = old.filter((each) => startOfDay(next.time) <= horizon[each]);
  const former = readStub(directory, segment);
  const isThinned = former?.file !== undefined && former.file.bytes === file.statSync().size;
  const isDone = isThinned && due.every((each) => former.classes.includes(each));
  const mayAllGo = mayGo && due.length === CLASSES.length;
  if (due.length === 0 || (isDone && !mayAllGo)) return undefined;

  using left = openNew(`${path}.new`);
  const copy = copyWithout(file, left, header, (entry) => {
    const eventClass = classOfEntry(entry);
    return due.includes(eventClass) && Date.parse(entry.time) <= horizon[eventClass];
  });
  const { walk, removed, removedBefore, kept } = copy;
  requireNext(next, walk);
  const replaced = digestOf(file);
  if (removedBefore > 0) requireStub(former, walk, replaced);
  const isEmpty = removed + removedBefore === walk.head.seq - header.seq;
  if (removed === 0 && !(mayAllGo && isEmpty)) return undefined;

  left.syncSync();
  const times = [
    ...copy.times,
    ...removedBefore > 0 && former !== undefined ? [former.earliest, former.latest] : [],
  ]
    .sort();
  return {
    facts: {
      origin: header.origin,
      segment,
      first: header.seq + 1,
      last: walk.head.seq,
      earliest: times.at(0) ?? header.time,
      latest: times.at(-1) ?? header.time,
      previous: header.previous,
      hash: walk.head.hash,
      rangeBefore: header.range,
      rangeAfter: walk.range.hashes,
      removed: removed + removedBefore,
      classes: CLASSES.filter((each) => due.includes(each) && !kept.has(each)),
      file: mayAllGo && isEmpty ? undefined : { sha256: digestOf(left), bytes: left.statSync().size },
      replaced,
    },
    removed,
    formerNote: removedBefore > 0 ? former?.note : undefined,
  };
}

/**
 * Puts the signed stub in its place: from now on the entries may lack, and may be there.
 *
 * @param note the stub's text, signed
 */
export function putStub(directory: string, segment: number, note: string): void {
  const path = `${directory}/${stubName(segment)}`;
  {
    using file = openNew(`${path}.new`);
    writeAll(file, note);
    file.syncSync();
  }
  Deno.renameSync(`${path}.new`, path);
  syncDirectory(directory);
}

/** Takes the entries out: what is left takes the segment's place, or the segment goes. Its stub must be in place. */
export function replaceSegment(
  directory: string,
  { segment, file }: Pick<StubFacts, "segment" | "file">,
): void {
  const path = pathOf(directory, segment);
  if (file === undefined) Deno.removeSync(path);
  else Deno.renameSync(`${path}.new`, path);
  syncDirectory(directory);
}

/** A segment of which entries may go, or why that cannot be told. */
export type DueSegment =
  | { readonly ok: true; readonly thinning: Thinning }
  | { readonly ok: false; readonly segment: number; readonly reason: string };

/**
 * The segments of which entries may go, the oldest first, each prepared when it is asked for. What is not taken out by then
 * stays.
 *
 * @param before the first segment that is not looked at: the one that is being written
 * @throws Fault `unavailable` when the folder cannot be read
 */
export function* dueSegments(directory: string, horizon: Horizon, before: number): Generator<DueSegment> {
  removeLeftovers(directory);
  let haveGone = true;
  for (const segment of listSegments(directory)) {
    if (segment >= before) break;
    try {
      const thinning = prepareThinning(directory, segment, horizon, haveGone);
      if (thinning !== undefined) yield { ok: true, thinning };
    } catch (thrown) {
      yield { ok: false, segment, reason: reasonOf(thrown) };
    }
    removeLeftovers(directory);
    haveGone &&= !exists(pathOf(directory, segment));
  }
}

/** Removes what a crash, or a segment of which nothing went, has left beside the segments. */
function removeLeftovers(directory: string): void {
  for (const { name } of Deno.readDirSync(directory)) {
    if (/^audit-\d{6,}\.(?:jsonl|stub)\.new$/.test(name)) Deno.removeSync(`${directory}/${name}`);
  }
}

function exists(path: string): boolean {
  try {
    Deno.statSync(path);
    return true;
  } catch (thrown) {
    if (thrown instanceof Deno.errors.NotFound) return false;
    throw thrown;
  }
}

interface Copy {
  /** Behind the segment's last entry. */
  readonly walk: TrailWalk;
  readonly removed: number;
  readonly removedBefore: number;
  /** Classes of entries that stay. */
  readonly kept: ReadonlySet<EventClass>;
  /** The earliest and the latest of the entries that were there; empty without any. */
  readonly times: readonly string[];
}

function copyWithout(
  file: Deno.FsFile,
  left: Deno.FsFile,
  header: SegmentHeader,
  goes: (entry: ChainEntry) => boolean,
): Copy {
  const walk = new TrailWalk();
  try {
    walk.believe(header);
  } catch {
    throw damaged(header.segment, "its header has no tree of as many entries");
  }
  walk.beginSegment(header.segment);
  let [removed, removedBefore] = [0, 0];
  let times: readonly string[] = [];
  const kept = new Set<EventClass>();
  let text = "";
  let run: string[] = [];
  /** Writes the hashes of what goes, up to entry `last`. */
  const endRun = (last: number): void => {
    text += removedLines({ seq: last - run.length + 1, removed: run });
    run = [];
  };
  file.seekSync(0, Deno.SeekMode.Start);
  for (const { bytes, end } of readLines(file)) {
    if (end !== "line_feed") throw damaged(header.segment, "its last line is not whole");
    const before = walk.head.seq;
    const line = walk.take(bytes);
    if (isMistake(line)) throw damaged(header.segment, line.words);
    if (line.kind === "removed") {
      removedBefore += line.removed.removed.length;
      run.push(...line.removed.removed);
      continue;
    }
    if (line.kind === "entry") {
      const { time } = line.entry;
      const [earliest = time, latest = time] = times;
      times = [time < earliest ? time : earliest, time > latest ? time : latest];
      if (goes(line.entry)) {
        removed++;
        run.push(line.entry.hash);
        continue;
      }
      kept.add(classOfEntry(line.entry));
    }
    endRun(before);
    text += `${textOf(bytes)}\n`;
    if (text.length < PIECE_CHARACTERS) continue;
    writeAll(left, text);
    text = "";
  }
  endRun(walk.head.seq);
  writeAll(left, text);
  return { walk, removed, removedBefore, kept, times };
}

function classOfEntry({ event }: ChainEntry): EventClass {
  return isSealed(event) ? event.class : classOf(String(event.type));
}

function nextHeader(directory: string, segment: number): SegmentHeader {
  using file = Deno.openSync(pathOf(directory, segment), { read: true });
  return readHeader(file, segment);
}

/** Whoever goes on behind the segment must have seen the same entries. */
function requireNext(next: SegmentHeader, { head, range }: TrailWalk): void {
  const isNext = next.seq === head.seq && next.previous === head.hash &&
    next.range.join() === range.hashes.join();
  if (!isNext) throw damaged(next.segment, "its header does not continue the segment before it");
}

/** What was taken out before was taken out by a stub, or by somebody else. */
function requireStub(stub: Stub | undefined, walk: TrailWalk, digest: string): void {
  const isOf = stub !== undefined && walk.checkStub(stub) === undefined &&
    (digest === stub.file?.sha256 || digest === stub.replaced);
  if (!isOf) {
    throw damaged(walk.segment, "entries were taken out, and its stub does not say that they may be");
  }
}

function readHeader(file: Deno.FsFile, segment: number): SegmentHeader {
  const line = readLines(file).next();
  const header = line.done !== true && line.value.end === "line_feed"
    ? parseHeader(line.value.bytes)
    : undefined;
  if (header?.ok !== true || header.value.segment !== segment) {
    throw damaged(segment, "its header is damaged");
  }
  return header.value;
}

function startOfDay(time: string): number {
  return Date.parse(`${time.slice(0, 10)}T00:00:00.000Z`);
}

function pathOf(directory: string, segment: number): string {
  return `${directory}/${segmentName(segment)}`;
}

function openNew(path: string): Deno.FsFile {
  return Deno.openSync(path, { read: true, write: true, create: true, truncate: true, mode: 0o600 });
}

function writeAll(file: Deno.FsFile, text: string): void {
  const bytes = encodeUtf8(text);
  for (let written = 0; written < bytes.length;) written += file.writeSync(bytes.subarray(written));
}

function textOf(bytes: Uint8Array): string {
  const text = decodeUtf8(bytes);
  if (!text.ok) throw new Fault("internal", "Cannot copy an audit entry: it is not UTF-8");
  return text.value;
}

function damaged(segment: number, state: string): Fault {
  return new Fault("unavailable", `Cannot take entries out of ${segmentName(segment)}: ${state}`);
}
