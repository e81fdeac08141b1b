// Trail walk: goes along a trail line by line and checks that each continues the chain and the tree. Pure.
import {
  CHAIN_START,
  type ChainEntry,
  type ChainHead,
  checkLink,
  type EntryMistake,
  parseEntry,
} from "../trail/hash_chain.ts";
import { CompactRange } from "../trail/merkle_tree.ts";
import { isRemovedLine, parseRemovedLine, type RemovedEntries } from "../trail/removed_line.ts";
import { type HeaderMistake, parseHeader, type SegmentHeader, segmentName } from "../trail/segment_files.ts";
import { intentStepOf } from "../trail/open_intents.ts";
import { isSealed } from "../trail/sealed_event.ts";
import type { StubFacts } from "../trail/segment_stub.ts";

/** What can be wrong with a line, or with what stands for a segment. */
export type MistakeKind =
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
  /** A segment's header is missing, or does not say what the entries before it say. */
  | "header_wrong"
  /** A stub does not go with the entries around it, or nobody who may has signed it. */
  | "stub_wrong";

/** Something wrong. */
export interface Mistake {
  readonly kind: MistakeKind;
  /** The number of the entry found or, where it cannot be read, of the one expected. */
  readonly seq: number;
  /** In words for an auditor. They quote nothing from the trail but numbers. */
  readonly words: string;
}

/** What a good line holds. */
export type SegmentLine =
  | { readonly kind: "header"; readonly header: SegmentHeader }
  | { readonly kind: "entry"; readonly entry: ChainEntry }
  | { readonly kind: "removed"; readonly removed: RemovedEntries };

const LINE_WORDS: Readonly<Record<EntryMistake | HeaderMistake, string>> = {
  not_utf8: "the line is not UTF-8",
  not_json: "the line is not JSON",
  not_an_entry: "the line is not an audit entry",
  not_a_header: "the segment does not begin with its header",
  not_canonical: "the line is not in the canonical form in which it is written",
  hash_wrong: "the entry's hash does not match its content",
  older_format:
    "the segment begins with an entry: it was written by an older version, or its header was taken away",
};

/** How far somebody has come along a trail. After a mistake it stands before what is wrong. */
export class TrailWalk {
  readonly #takeLeaf: (seq: number, hash: string) => void;
  #head: ChainHead = CHAIN_START;
  #range = new CompactRange();
  #origin: string | undefined;
  #segment = 0;
  /** Where the present segment begins. */
  #before: { readonly head: ChainHead; readonly range: readonly string[] } = { head: CHAIN_START, range: [] };
  /** The header of the present segment; undefined before it was read. */
  #header: SegmentHeader | undefined;

  /** Numbers of open intents by their requests; undefined while some of what was passed is sealed or gone. */
  #open: Map<string, number> | undefined = new Map();

  /** @param takeLeaf told of each leaf, in order, when the walk has just stepped behind it */
  constructor(takeLeaf: (seq: number, hash: string) => void = () => {}) {
    this.#takeLeaf = takeLeaf;
  }

  /** The last entry that was passed. */
  get head(): ChainHead {
    return this.#head;
  }

  /** The number of the present segment. */
  get segment(): number {
    return this.#segment;
  }

  /** The tree of the entries that were passed. */
  get range(): CompactRange {
    return this.#range;
  }

  /** Which trail this is; undefined before anything said so. */
  get origin(): string | undefined {
    return this.#origin;
  }

  /** The last entry before the present segment. */
  get headBefore(): ChainHead {
    return this.#before.head;
  }

  /** Another one that stands where this one stands, and tells the same one of leaves. */
  copy(): TrailWalk {
    const copy = new TrailWalk(this.#takeLeaf);
    copy.#head = this.#head;
    copy.#range = this.#range.copy();
    copy.#origin = this.#origin;
    copy.#segment = this.#segment;
    copy.#before = this.#before;
    copy.#header = this.#header;
    copy.#open = this.#open && new Map(this.#open);
    return copy;
  }

  /** Starts behind the entries that a header tells of, without having seen them. */
  believe({ seq, previous, range, origin }: SegmentHeader): void {
    this.#head = { seq, hash: previous };
    this.#range = new CompactRange(seq, range);
    this.#origin = origin;
    this.#open = undefined;
  }

  /** The next lines are those of this segment. */
  beginSegment(number: number): void {
    this.#segment = number;
    this.#header = undefined;
    this.#before = { head: this.#head, range: [...this.#range.hashes] };
  }

  /** The next line, without its line feed. */
  take(line: Uint8Array): SegmentLine | Mistake {
    if (this.#header === undefined) return this.#takeHeader(line);
    return isRemovedLine(line) ? this.#takeRemoved(line) : this.#takeEntry(line);
  }

  /** Passes over a segment of which only its stub is left; the stub's signature is for the caller to verify. */
  skip(stub: StubFacts): Mistake | undefined {
    const mistake = this.#checkStart(stub);
    if (mistake !== undefined) return mistake;
    try {
      this.#range = new CompactRange(stub.last, stub.rangeAfter);
    } catch {
      return this.#mistake("stub_wrong", "the stub's range is none of as many entries");
    }
    this.#head = { seq: stub.last, hash: stub.hash };
    this.#origin = stub.origin;
    this.#open = undefined;
    return undefined;
  }

  /** Whether a stub goes with the entries of the present segment, of which all were passed. */
  checkStub(stub: StubFacts): Mistake | undefined {
    const isEnd = stub.last === this.#head.seq && stub.hash === this.#head.hash &&
      areEqual(stub.rangeAfter, this.#range.hashes);
    return this.#checkStart(stub) ??
      (isEnd
        ? undefined
        : this.#mistake("stub_wrong", "the stub does not go with the entries of its segment"));
  }

  #checkStart({ origin, segment, first, previous, rangeBefore }: StubFacts): Mistake | undefined {
    const { head, range } = this.#before;
    const isNext = segment === this.#segment && first === head.seq + 1 && previous === head.hash &&
      areEqual(rangeBefore, range) && origin === (this.#origin ?? origin);
    return isNext
      ? undefined
      : this.#mistake("stub_wrong", "the stub does not continue the entries before its segment");
  }

  #takeHeader(line: Uint8Array): SegmentLine | Mistake {
    const parsed = parseHeader(line);
    if (!parsed.ok) return this.#mistake("header_wrong", LINE_WORDS[parsed.reason]);
    const header = parsed.value;
    const { seq, hash } = this.#head;
    if (header.segment !== this.#segment) {
      return this.#mistake("header_wrong", `the header is that of ${segmentName(header.segment)}`);
    }
    if (header.origin !== (this.#origin ?? header.origin)) {
      return this.#mistake("header_wrong", "the header is that of another trail");
    }
    if (header.seq !== seq || header.previous !== hash) {
      return this.#mistake(
        "header_wrong",
        `the header tells of ${header.seq} entries before it, and these are not the ${seq} that are there`,
      );
    }
    if (!areEqual(header.range, this.#range.hashes)) {
      return this.#mistake("header_wrong", "the header's tree is not that of the entries before it");
    }
    if (this.#open !== undefined && !areEqual(header.open, [...this.#open.values()])) {
      return this.#mistake(
        "header_wrong",
        "the header's open inferences are not those of the entries before it",
      );
    }
    // What has no open intents needs no memory of older ones.
    if (header.open.length === 0) this.#open = new Map();
    this.#origin = header.origin;
    this.#header = header;
    return { kind: "header", header };
  }

  #takeEntry(line: Uint8Array): SegmentLine | Mistake {
    const parsed = parseEntry(line);
    if (!parsed.ok) return this.#mistake("edited", LINE_WORDS[parsed.reason]);
    const entry = parsed.value;
    const link = checkLink(entry, this.#head);
    if (!link.ok) return this.#linkMistake(link.reason, entry.seq);
    const isFirst = entry.seq - 1 === this.#header?.seq;
    if (isFirst && entry.time !== this.#header?.time) {
      return this.#mistake("header_wrong", "the header's time is not that of the segment's first entry");
    }
    this.#pass(entry.seq, entry.hash);
    this.#takeStep(entry);
    return { kind: "entry", entry };
  }

  #takeRemoved(line: Uint8Array): SegmentLine | Mistake {
    const removed = parseRemovedLine(line);
    if (removed === undefined) {
      return this.#mistake("edited", "the line does not stand for removed entries as it was written");
    }
    if (removed.seq !== this.#head.seq + 1) {
      return this.#linkMistake(removed.seq > this.#head.seq ? "seq_ahead" : "seq_behind", removed.seq);
    }
    this.#open = undefined;
    for (const [index, hash] of removed.removed.entries()) this.#pass(removed.seq + index, hash);
    return { kind: "removed", removed };
  }

  #takeStep({ seq, event }: ChainEntry): void {
    // No intent and no outcome is of the class "security".
    if (isSealed(event) && event.class === "activity") this.#open = undefined;
    const step = intentStepOf(event);
    if (step === undefined || this.#open === undefined) return;
    this.#open.delete(step.request);
    if (step.opens) this.#open.set(step.request, seq);
  }

  #pass(seq: number, hash: string): void {
    this.#range.append(hash);
    this.#head = { seq, hash };
    this.#takeLeaf(seq, hash);
  }

  #linkMistake(reason: "restarted" | "seq_ahead" | "seq_behind" | "previous_wrong", seq: number): Mistake {
    const expected = this.#head.seq + 1;
    switch (reason) {
      case "restarted":
        return { kind: "restarted", seq, words: `the chain begins anew where entry ${expected} belongs` };
      case "seq_ahead": {
        const words =
          `entry ${expected} belongs here, but entry ${seq} follows: entries were dropped or swapped`;
        return { kind: "missing", seq, words };
      }
      case "seq_behind": {
        const words =
          `entry ${expected} belongs here, but entry ${seq} stands here: duplicated, inserted or swapped`;
        return { kind: "out_of_place", seq, words };
      }
      case "previous_wrong": {
        const words = "the entry does not continue the one before it: an entry was replaced or inserted";
        return { kind: "replaced", seq, words };
      }
    }
  }

  #mistake(kind: MistakeKind, words: string): Mistake {
    return { kind, seq: this.#head.seq + 1, words };
  }
}

/** Whether what the walk answered is a mistake. */
export function isMistake(answer: SegmentLine | Mistake): answer is Mistake {
  return "words" in answer;
}

function areEqual<Value>(left: readonly Value[], right: readonly Value[]): boolean {
  return left.length === right.length && left.every((each, index) => each === right[index]);
}
