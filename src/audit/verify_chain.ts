// Verify chain: reads a whole trail, with read permission only, and finds the first place where it was tampered with.
import { Fault } from "../faults/fault.ts";
import { type Checkpoint, readCheckpoint } from "./checkpoint.ts";
import {
  type HistoryNote,
  type KeptHead,
  openTreeHead,
  readHistory,
  readTrailKeys,
  treeHeadOf,
} from "./checkpoint_history.ts";
import { CHAIN_START, type ChainHead } from "./hash_chain.ts";
import { type Line, listSegments, readLines, reasonOf, segmentName } from "./segment_files.ts";
import { digestOf, listStubs, readStub, type Stub, stubName } from "./segment_stub.ts";
import { type NoteVerifier, openNote, parseVerifierKey } from "./signed_note.ts";
import { isMistake, type MistakeKind, TrailWalk } from "./trail_walk.ts";
import type { TreeHead } from "./tree_head.ts";

/** What can be wrong with a trail. */
export type FindingKind =
  | MistakeKind
  | "segment_missing"
  /** Entries were taken out, and no stub says that they may. */
  | "stub_missing"
  /** The trail ends before an entry that a checkpoint has seen. */
  | "cut"
  /** The entries are not those that a checkpoint has seen: they were written anew. */
  | "rewritten"
  | "checkpoint_missing"
  | "checkpoint_unreadable"
  /** A signed checkpoint that is none, or whose signature is wrong. */
  | "checkpoint_forged"
  /** A checkpoint that no trusted key has signed, and that no newer one covers. */
  | "checkpoint_untrusted"
  /** There are entries and no signed checkpoint. */
  | "unsigned"
  /** A checkpoint that was kept elsewhere cannot be compared: too much was taken out since. */
  | "kept_unprovable"
  | "unreadable";

/** The first thing found wrong. */
export interface Finding {
  readonly kind: FindingKind;
  /** The name of the file; "" where the finding is about the folder. */
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
  readonly origin: string | undefined;
  readonly entries: number;
  /** How many of the entries were taken out by retention, with a signed stub. */
  readonly removed: number;
  readonly segments: number;
  /** Times of the first and the last entry that is there. */
  readonly firstTime: string | undefined;
  readonly lastTime: string | undefined;
  readonly head: ChainHead;
  readonly checkpoint: Checkpoint | undefined;
  /** Signed checkpoints whose root is the tree's. */
  readonly checkpoints: number;
  /** The newest of them: up to it nobody without the key can have changed anything. */
  readonly signed: TreeHead | undefined;
  /** Checkpoints, signed or kept, in segments that were taken out as a whole: nothing to compare is left of them. */
  readonly unprovable: number;
  /** The largest checkpoint kept elsewhere that was found to be the beginning of this trail. */
  readonly kept: KeptHead | undefined;
  readonly tornTail: TornTail | undefined;
  readonly finding: Finding | undefined;
}

/** What to verify. */
export interface VerifyChainOptions {
  readonly directory: string;
  readonly checkpointDirectory: string;
  /** Who may have signed, and whom they name as their successors. Without it: the keys that stand beside the trail. */
  readonly trusted?: readonly NoteVerifier[];
  /** Checkpoints that were kept elsewhere: each must be the beginning of this trail. */
  readonly kept?: readonly KeptHead[];
  /** Called about every MiB and at the end. */
  readonly progress?: (bytesDone: number, bytesTotal: number) => void;
}

const PROGRESS_BYTES = 1024 * 1024;

/**
 * Verifies a trail from its first entry to its end, line by line, whatever its size. It may be in use meanwhile.
 *
 * Up to the newest signed checkpoint only who has the signing key can have changed anything. Whoever can write both
 * folders can still go back to an older state of them, or write anew what no signed checkpoint covers yet: only what was
 * kept elsewhere shows that.
 */
export async function verifyChain(options: VerifyChainOptions): Promise<ChainVerdict> {
  const { checkpointDirectory, kept = [] } = options;
  // First of all, for a trail in use only grows: it cannot fall behind a checkpoint read before it.
  const checkpoint = readCheckpoint(checkpointDirectory);
  const trusted = [...options.trusted ?? readTrailKeys(checkpointDirectory)];
  const reading = new Reading(checkpoint.ok ? checkpoint.value : undefined, kept);
  const history = new History(trusted);
  try {
    for (const note of readHistory(checkpointDirectory)) {
      history.take(note);
      if (history.count % 100 === 0) await othersTurn();
    }
    reading.expect(history.settle());
    await readSegments(options, reading, trusted);
  } catch (thrown) {
    const words = thrown instanceof Fault ? thrown.message : `it cannot be read: ${reasonOf(thrown)}`;
    reading.find("unreadable", words);
  }
  // A damaged entry says more than a missing checkpoint: so this comes last.
  reading.end(checkpoint.ok ? undefined : checkpoint.reason);
  reading.note(history.finding);
  reading.requireSigned();
  return reading.verdict();
}

async function readSegments(
  options: VerifyChainOptions,
  reading: Reading,
  trusted: readonly NoteVerifier[],
): Promise<void> {
  const { directory, progress } = options;
  const files = listSegments(directory);
  const last = Math.max(0, ...files.slice(-1), ...listStubs(directory));
  let bytesTotal = 0;
  for (const number of files) bytesTotal += sizeOf(`${directory}/${segmentName(number)}`);
  let bytesDone = 0;
  let bytesReported = 0;
  for (let number = 1; number <= last && !reading.over; number++) {
    reading.beginSegment(number);
    using file = openExisting(`${directory}/${segmentName(number)}`);
    if (file === undefined) {
      reading.skip(readStub(directory, number), trusted);
      continue;
    }
    for (const line of readLines(file)) {
      reading.takeLine(line, number === last);
      if (reading.over) return;
      bytesDone += line.bytes.length + 1;
      if (bytesDone - bytesReported < PROGRESS_BYTES) continue;
      bytesReported = bytesDone;
      progress?.(Math.min(bytesDone, bytesTotal), bytesTotal);
      await othersTurn();
    }
    if (reading.removedInSegment > 0) {
      const digest = digestOf(file);
      // Read after the file: the stub that is there by now names this file, as what is left or as what is replaced next.
      reading.checkStub(readStub(directory, number), digest, trusted);
    }
  }
  progress?.(bytesTotal, bytesTotal);
}

function othersTurn(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 0));
}

/** 0 where retention has just taken the file away. */
function sizeOf(path: string): number {
  try {
    return Deno.statSync(path).size;
  } catch (thrown) {
    if (thrown instanceof Deno.errors.NotFound) return 0;
    throw thrown;
  }
}

function openExisting(path: string): Deno.FsFile | undefined {
  try {
    return Deno.openSync(path, { read: true });
  } catch (thrown) {
    if (thrown instanceof Deno.errors.NotFound) return undefined;
    throw thrown;
  }
}

/** A checkpoint that the walk along the trail comes to. */
interface ExpectedHead extends KeptHead {
  /** Where it was found; undefined: it was kept elsewhere. */
  readonly place: { readonly file: string; readonly line: number } | undefined;
  readonly isTrusted: boolean;
}

/** The notes of a history: those that a trusted key has signed, and the others. */
class History {
  /** Grows where a trusted key names its successor. */
  readonly #trusted: NoteVerifier[];
  readonly #signed: ExpectedHead[] = [];
  readonly #unknown: HistoryNote[] = [];
  #finding: Finding | undefined;
  #count = 0;

  constructor(trusted: NoteVerifier[]) {
    this.#trusted = trusted;
  }

  get finding(): Finding | undefined {
    return this.#finding;
  }

  get count(): number {
    return this.#count;
  }

  take(each: HistoryNote): void {
    this.#count++;
    const { file, line, note = "" } = each;
    const opened = openTreeHead(note, this.#trusted);
    if (opened.ok) {
      const { origin, size, root, nextKey } = opened.value;
      this.#signed.push({ origin, size, root, place: { file, line }, isTrusted: true });
      const key = nextKey === undefined ? undefined : parseVerifierKey(nextKey);
      if (key?.ok === true) this.#trusted.push(key.value);
    } else if (opened.reason === "unknown_key") {
      this.#unknown.push(each);
    } else {
      const words = opened.reason === "forged"
        ? "the checkpoint's signature is wrong"
        : "the line is no checkpoint";
      this.#find("checkpoint_forged", each, words);
    }
  }

  /** All checkpoints, by their sizes. One that nobody known has signed must be covered by a newer one. */
  settle(): readonly ExpectedHead[] {
    const sizeMax = this.#signed.reduce((most, { size }) => Math.max(most, size), -1);
    const unknown: ExpectedHead[] = [];
    for (const each of this.#unknown) {
      const head = treeHeadOf(each.note ?? "");
      if (head === undefined) this.#find("checkpoint_forged", each, "the line is no checkpoint");
      else if (head.size > sizeMax) {
        this.#find("checkpoint_untrusted", each, "no trusted key has signed this checkpoint");
      } else unknown.push({ ...head, place: each, isTrusted: false });
    }
    return [...this.#signed, ...unknown];
  }

  #find(kind: FindingKind, { file, line }: HistoryNote, words: string): void {
    this.#finding ??= { kind, segment: file, line, seq: 0, words };
  }
}

/** How far a verification has come. The first finding ends it. */
class Reading {
  readonly #walk = new TrailWalk((seq, hash) => this.#meet(seq, hash));
  readonly #checkpoint: Checkpoint | undefined;
  /** By size; those before `#next` were met or passed over. */
  #expected: readonly ExpectedHead[];
  #next = 0;
  #segment = 0;
  #line = 0;
  #isStub = false;
  #removed = 0;
  #removedInSegment = 0;
  #firstTime: string | undefined;
  #lastTime: string | undefined;
  #checkpoints = 0;
  #signed: TreeHead | undefined;
  #kept: KeptHead | undefined;
  #unprovable = 0;
  #tornTail: TornTail | undefined;
  #finding: Finding | undefined;

  constructor(checkpoint: Checkpoint | undefined, kept: readonly KeptHead[]) {
    this.#checkpoint = checkpoint;
    this.#expected = kept.map((head) => ({ ...head, place: undefined, isTrusted: false }));
  }

  get over(): boolean {
    return this.#finding !== undefined;
  }

  /** How many entries of the present segment were taken out. */
  get removedInSegment(): number {
    return this.#removedInSegment;
  }

  verdict(): ChainVerdict {
    const { head, origin } = this.#walk;
    return {
      origin,
      entries: head.seq,
      removed: this.#removed,
      segments: this.#segment,
      firstTime: this.#firstTime,
      lastTime: this.#lastTime,
      head,
      checkpoint: this.#checkpoint,
      checkpoints: this.#checkpoints,
      signed: this.#signed,
      kept: this.#kept,
      unprovable: this.#unprovable,
      tornTail: this.#tornTail,
      finding: this.#finding,
    };
  }

  /** Takes the signed checkpoints, which the tree must pass through like those that were kept. */
  expect(heads: readonly ExpectedHead[]): void {
    this.#expected = [...this.#expected, ...heads].sort((left, right) => left.size - right.size);
    this.#meet(0, CHAIN_START.hash);
  }

  beginSegment(number: number): void {
    this.#segment = number;
    this.#line = 0;
    this.#isStub = false;
    this.#removedInSegment = 0;
    this.#walk.beginSegment(number);
  }

  takeLine(line: Line, inLastSegment: boolean): void {
    this.#line++;
    if (line.end === "end_of_file" && inLastSegment) {
      this.#tornTail = { segment: this.#fileName(), line: this.#line, bytes: line.bytes.length };
      return;
    }
    if (line.end !== "line_feed") return this.find("edited", "the line has no end");
    const taken = this.#walk.take(line.bytes);
    if (isMistake(taken)) {
      this.find(taken.kind, taken.words, taken.seq);
    } else if (taken.kind === "removed") {
      this.#removedInSegment += taken.removed.removed.length;
      this.#removed += taken.removed.removed.length;
    } else if (taken.kind === "entry") {
      this.#firstTime ??= taken.entry.time;
      this.#lastTime = taken.entry.time;
    }
  }

  /** A segment without its file. */
  skip(stub: Stub | undefined, trusted: readonly NoteVerifier[]): void {
    if (stub === undefined) {
      return this.find("segment_missing", "the segment is missing, and no stub says that it may be");
    }
    this.#isStub = true;
    if (stub.file !== undefined) {
      return this.find(
        "segment_missing",
        "the segment is missing, though its stub says that entries were kept",
      );
    }
    const before = this.#walk.head.seq;
    const words = forgedWords(stub, trusted) ?? this.#walk.skip(stub)?.words;
    if (words !== undefined) return this.find("stub_wrong", words);
    this.#removed += stub.last - before;
    this.#meet(stub.last, stub.hash);
  }

  /** A segment of which entries were taken out, when it was read to its end. */
  checkStub(stub: Stub | undefined, digest: string, trusted: readonly NoteVerifier[]): void {
    if (stub === undefined) {
      return this.find(
        "stub_missing",
        "entries were taken out, and no stub says that they may be",
        this.#walk.headBefore.seq + 1,
      );
    }
    this.#isStub = true;
    this.#line = 0;
    const words = forgedWords(stub, trusted) ??
      this.#walk.checkStub(stub)?.words ??
      (digest === stub.replaced || (digest === stub.file?.sha256 && stub.removed === this.#removedInSegment)
        ? undefined
        : "the segment is not what the stub says was left of it");
    if (words !== undefined) this.find("stub_wrong", words, this.#walk.headBefore.seq + 1);
  }

  /** Notes a finding at the present place, unless there is one already. */
  find(kind: FindingKind, words: string, seq: number = this.#walk.head.seq + 1): void {
    this.note({ kind, segment: this.#segment === 0 ? "" : this.#fileName(), line: this.#line, seq, words });
  }

  /** Notes a finding, unless there is one already. */
  note(finding: Finding | undefined): void {
    this.#finding ??= finding;
  }

  /** All was read. What a checkpoint has seen must have been there. */
  end(checkpointReason: "missing" | "unreadable" | undefined): void {
    const seq = this.#walk.head.seq + 1;
    if (checkpointReason !== undefined) {
      const words =
        `the checkpoint is ${checkpointReason}, so nobody can tell whether the end of the trail was cut off`;
      this.note({ kind: `checkpoint_${checkpointReason}`, segment: "checkpoint.json", line: 0, seq, words });
    }
    if (this.#checkpoint !== undefined && this.#checkpoint.seq >= seq) {
      this.#findCut(this.#checkpoint.segment, this.#checkpoint.seq, "the checkpoint has");
    }
    const missed = this.#expected[this.#next];
    if (missed !== undefined) this.#findCut(this.#fileName(), missed.size, `${placeWords(missed)} has`);
  }

  /** Entries that nobody has signed can be anybody's. */
  requireSigned(): void {
    const seq = this.#walk.head.seq;
    if (seq === 0 || this.#signed !== undefined) return;
    const words =
      "no checkpoint that a trusted key has signed covers any entry: all of them can have been written anew";
    this.note({ kind: "unsigned", segment: "", line: 0, seq: 1, words });
  }

  #findCut(segment: string, seen: number, who: string): void {
    const { seq } = this.#walk.head;
    const end = seq === 0 ? "holds no entry" : `ends with entry ${seq}`;
    const words =
      `the trail ${end}, but ${who} seen entry ${seen}: its end was cut off, or it was started anew`;
    this.note({ kind: "cut", segment, line: 0, seq: seq + 1, words });
  }

  /** The walk stands behind an entry: checkpoints of just as many entries are compared, those before were not met. */
  #meet(seq: number, hash: string): void {
    const { range } = this.#walk;
    let root: string | undefined;
    if (seq === this.#checkpoint?.seq) {
      root = range.root();
      if (hash !== this.#checkpoint.hash || root !== this.#checkpoint.root) {
        this.find(
          "rewritten",
          "the entry is not the one that the checkpoint has seen: the trail was written anew",
          seq,
        );
      }
    }
    for (let head = this.#expected[this.#next]; head !== undefined && head.size <= seq;) {
      if (head.size === seq) this.#compare(head, root ??= range.root());
      else this.#pass(head);
      head = this.#expected[++this.#next];
    }
  }

  #compare(head: ExpectedHead, root: string): void {
    const { size, place } = head;
    const origin = this.#walk.origin ?? head.origin;
    if (head.root !== root || (head.origin ?? origin) !== origin) {
      const good = Math.max(this.#signed?.size ?? 0, this.#kept?.size ?? 0);
      const which = good === 0 ? `the first ${size} entries` : `entries ${good + 1} to ${size}`;
      return this.find(
        "rewritten",
        `${which} are not those that ${
          placeWords(head)
        } has seen: at least one of them was changed or written anew`,
        good + 1,
      );
    }
    if (place === undefined) this.#kept = head;
    else this.#checkpoints++;
    if (head.isTrusted && head.origin !== undefined) this.#signed = { origin: head.origin, size, root };
  }

  /** Whatever it has seen is gone; a larger one that was kept as well stands for it. */
  #pass(head: ExpectedHead): void {
    this.#unprovable++;
    const isLastKept = head.place === undefined &&
      !this.#expected.slice(this.#next + 1).some(({ place }) => place === undefined);
    if (!isLastKept) return;
    this.find(
      "kept_unprovable",
      `the checkpoint that was kept has seen ${head.size} entries, and the segment with the last of them was taken out as a whole: keep a newer one`,
      head.size,
    );
  }

  #fileName(): string {
    return this.#isStub ? stubName(this.#segment) : segmentName(this.#segment);
  }
}

function placeWords({ place, size }: ExpectedHead): string {
  return place === undefined
    ? `the checkpoint of ${size} entries that was kept`
    : `the signed checkpoint in ${place.file} line ${place.line}`;
}

/** Why a stub is not believed; undefined when it is. */
function forgedWords({ note }: Stub, trusted: readonly NoteVerifier[]): string | undefined {
  const opened = openNote(note, trusted);
  if (opened.ok) return undefined;
  return opened.reason === "unknown_key"
    ? "no trusted key has signed the stub"
    : "the stub's signature is wrong";
}
