// Verify chain: reads a whole trail, with read permission only, and finds the first place where it was tampered with.
import { Fault } from "../faults/fault.ts";
import { type Checkpoint, readCheckpoint } from "./checkpoint.ts";
import {
  CHAIN_START,
  type ChainEntry,
  type ChainHead,
  checkLink,
  type EntryMistake,
  parseEntry,
} from "./hash_chain.ts";
import { type Line, listSegments, readLines, reasonOf, segmentName } from "./segment_files.ts";

/** What can be wrong with a trail. */
export type FindingKind =
  /** A line is not the bytes that were written. */
  | "edited"
  /** Entries lack before this one: dropped or swapped. */
  | "missing"
  /** An entry stands where a later one belongs: duplicated, inserted or swapped. */
  | "out_of_place"
  /** The entry before this one is not the one that it was chained to: replaced. */
  | "replaced"
  /** The chain begins again in its middle. */
  | "restarted"
  | "segment_missing"
  /** The trail ends before an entry that the checkpoint has seen. */
  | "cut"
  /** An entry is not the one that the checkpoint has seen: everything was written anew. */
  | "rewritten"
  | "checkpoint_missing"
  | "checkpoint_unreadable"
  | "unreadable";

/** The first thing found wrong. */
export interface Finding {
  readonly kind: FindingKind;
  /** The segment's file name, or the checkpoint's; "" where the finding is about the folder. */
  readonly segment: string;
  /** From 1; 0 where no line is meant. */
  readonly line: number;
  /** The number of the entry found there or, where it cannot be read or is absent, of the one expected. */
  readonly seq: number;
  /** What is wrong, in words for an auditor. They quote nothing from the trail but numbers. */
  readonly words: string;
}

/** A piece of a line at the very end, as a crash leaves it. It was never acknowledged, and the next start cuts it. */
export interface TornTail {
  readonly segment: string;
  readonly line: number;
  readonly bytes: number;
}

/** What the verification saw. With a finding, the figures are those of the good part before it. */
export interface ChainVerdict {
  readonly entries: number;
  readonly segments: number;
  readonly firstTime: string | undefined;
  readonly lastTime: string | undefined;
  readonly head: ChainHead;
  readonly checkpoint: Checkpoint | undefined;
  readonly tornTail: TornTail | undefined;
  readonly finding: Finding | undefined;
}

/** What to verify. */
export interface VerifyChainOptions {
  readonly directory: string;
  readonly checkpointDirectory: string;
  /** Called about every MiB and at the end. */
  readonly progress?: (bytesDone: number, bytesTotal: number) => void;
}

const PROGRESS_BYTES = 1024 * 1024;

const EDITED: Readonly<Record<EntryMistake, string>> = {
  not_utf8: "the line is not UTF-8",
  not_json: "the line is not JSON",
  not_an_entry: "the line is not an audit entry",
  not_canonical: "the line is not in the canonical form in which entries are written",
  hash_wrong: "the entry's hash does not match its content",
};

/**
 * Verifies a trail from its first entry to its end, line by line, whatever its size. It may be in use meanwhile.
 *
 * The chain has no key: whoever can write both folders can write a new trail with its checkpoint. What was kept
 * elsewhere (an earlier verdict's head, a copy of the checkpoint) shows that.
 */
export async function verifyChain(options: VerifyChainOptions): Promise<ChainVerdict> {
  // First of all, for a trail in use only grows: it cannot fall behind a checkpoint read before it.
  const checkpoint = readCheckpoint(options.checkpointDirectory);
  const reading = new Reading(checkpoint.ok ? checkpoint.value : undefined);
  try {
    await readSegments(options, reading);
  } catch (thrown) {
    const words = thrown instanceof Fault ? thrown.message : `it cannot be read: ${reasonOf(thrown)}`;
    reading.find("unreadable", words);
  }
  // A damaged entry says more than a missing checkpoint: so this comes last.
  if (!checkpoint.ok) {
    reading.findInCheckpoint(
      `checkpoint_${checkpoint.reason}`,
      `the checkpoint is ${checkpoint.reason}, so nobody can tell whether the end of the trail was cut off`,
    );
  } else if (reading.verdict().head.seq < checkpoint.value.seq) {
    reading.findCut(checkpoint.value);
  }
  return reading.verdict();
}

async function readSegments(options: VerifyChainOptions, reading: Reading): Promise<void> {
  const { directory, progress } = options;
  const numbers = listSegments(directory);
  const last = numbers.at(-1);
  let bytesTotal = 0;
  for (const number of numbers) bytesTotal += Deno.statSync(`${directory}/${segmentName(number)}`).size;
  let bytesDone = 0;
  let bytesReported = 0;
  for (const number of numbers) {
    reading.beginSegment(number);
    if (reading.over) return;
    using file = Deno.openSync(`${directory}/${segmentName(number)}`, { read: true });
    for (const line of readLines(file)) {
      reading.takeLine(line, number === last);
      if (reading.over) return;
      bytesDone += line.bytes.length + 1;
      if (bytesDone - bytesReported < PROGRESS_BYTES) continue;
      bytesReported = bytesDone;
      progress?.(Math.min(bytesDone, bytesTotal), bytesTotal);
      await new Promise((resolve) => setTimeout(resolve, 0)); // others in this process get their turn
    }
  }
  progress?.(bytesTotal, bytesTotal);
}

/** How far a verification has come. The first finding ends it. */
class Reading {
  readonly #checkpoint: Checkpoint | undefined;
  #head: ChainHead = CHAIN_START;
  #segments = 0;
  #line = 0;
  #firstTime: string | undefined;
  #lastTime: string | undefined;
  #tornTail: TornTail | undefined;
  #finding: Finding | undefined;

  constructor(checkpoint: Checkpoint | undefined) {
    this.#checkpoint = checkpoint;
  }

  get over(): boolean {
    return this.#finding !== undefined;
  }

  verdict(): ChainVerdict {
    return {
      entries: this.#head.seq,
      segments: this.#segments,
      firstTime: this.#firstTime,
      lastTime: this.#lastTime,
      head: this.#head,
      checkpoint: this.#checkpoint,
      tornTail: this.#tornTail,
      finding: this.#finding,
    };
  }

  beginSegment(number: number): void {
    this.#segments++;
    this.#line = 0;
    if (number === this.#segments) return;
    this.find("segment_missing", `the segment is missing, though ${segmentName(number)} is there`);
  }

  takeLine(line: Line, inLastSegment: boolean): void {
    this.#line++;
    if (line.end === "end_of_file" && inLastSegment) {
      this.#tornTail = { segment: this.#segment(), line: this.#line, bytes: line.bytes.length };
      return;
    }
    if (line.end !== "line_feed") return this.find("edited", "the line has no end");
    const entry = parseEntry(line.bytes);
    if (!entry.ok) return this.find("edited", EDITED[entry.reason]);
    this.#link(entry.value);
  }

  /** Notes a finding at the present place, unless there is one already. */
  find(kind: FindingKind, words: string, seq: number = this.#head.seq + 1): void {
    this.#finding ??= {
      kind,
      segment: this.#segments === 0 ? "" : this.#segment(),
      line: this.#line,
      seq,
      words,
    };
  }

  findInCheckpoint(kind: FindingKind, words: string): void {
    this.#finding ??= { kind, segment: "checkpoint.json", line: 0, seq: this.#head.seq + 1, words };
  }

  findCut(checkpoint: Checkpoint): void {
    const end = this.#head.seq === 0 ? "holds no entry" : `ends with entry ${this.#head.seq}`;
    this.#finding ??= {
      kind: "cut",
      segment: checkpoint.segment,
      line: 0,
      seq: this.#head.seq + 1,
      words:
        `the trail ${end}, but the checkpoint has seen entry ${checkpoint.seq}: its end was cut off, or it was started anew`,
    };
  }

  #segment(): string {
    return segmentName(this.#segments);
  }

  #link(entry: ChainEntry): void {
    const link = checkLink(entry, this.#head);
    const expected = this.#head.seq + 1;
    if (!link.ok) {
      switch (link.reason) {
        case "restarted":
          return this.find("restarted", `the chain begins anew where entry ${expected} belongs`, entry.seq);
        case "seq_ahead":
          return this.find(
            "missing",
            `entry ${expected} belongs here, but entry ${entry.seq} follows: entries were dropped or swapped`,
            entry.seq,
          );
        case "seq_behind":
          return this.find(
            "out_of_place",
            `entry ${expected} belongs here, but entry ${entry.seq} stands here: duplicated, inserted or swapped`,
            entry.seq,
          );
        case "previous_wrong":
          return this.find(
            "replaced",
            `the entry does not continue the one before it: an entry was replaced or inserted`,
            entry.seq,
          );
      }
    }
    if (entry.seq === this.#checkpoint?.seq && entry.hash !== this.#checkpoint.hash) {
      return this.find(
        "rewritten",
        "the entry is not the one that the checkpoint has seen: the trail was written anew",
        entry.seq,
      );
    }
    this.#head = link.value;
    this.#firstTime ??= entry.time;
    this.#lastTime = entry.time;
  }
}
