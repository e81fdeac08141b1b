// Verify chain: reads a whole trail, with read permission only, and finds the first place where it was tampered with.
import { Fault } from "../../faults/fault.ts";
import { type Checkpoint, readCheckpoint } from "../trail/checkpoint.ts";
import {
  type HistoryNote,
  type KeptHead,
  openTreeHead,
  readHistory,
  readTrailKeys,
  type SignedHead,
  treeHeadOf,
  vouchersIn,
} from "./checkpoint_history.ts";
import { CHAIN_START, type ChainEntry, type ChainHead } from "../trail/hash_chain.ts";
import { followVouchers, isSameKey, type Succession } from "../trail/key_voucher.ts";
import { isSealed } from "../trail/sealed_event.ts";
import { type Line, listSegments, readLines, reasonOf, segmentName } from "../trail/segment_files.ts";
import { digestOf, listStubs, readStub, type Stub, stubName } from "../trail/segment_stub.ts";
import { type NoteVerifier, openNote } from "../trail/signed_note.ts";
import { isMistake, type MistakeKind, TrailWalk } from "./trail_walk.ts";
import type { TreeHead } from "../trail/tree_head.ts";

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
  /** A checkpoint that a key has signed which had been replaced by then. */
  | "checkpoint_retired"
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
  /**
   * Who may have signed, the newest last, and whom they name as their successors. The newest checkpoint must be signed by the newest
   * or by one of its successors. Without it: the keys that stand beside the trail.
   */
  readonly trusted?: readonly NoteVerifier[];
  /** Checkpoints that were kept elsewhere: each must be the beginning of this trail. */
  readonly kept?: readonly KeptHead[];
  /** Called about every MiB and at the end. */
  readonly progress?: (bytesDone: number, bytesTotal: number) => void;
}

const PROGRESS_BYTES = 1024 * 1024;
/**
 * Behind the checkpoint a writer may take bytes back (a write that failed, a probe), and put others in their place just when they are read:
 * what looks wrong there is read again.
 */
const ATTEMPTS = 5;
const AGAIN_MS = 50;

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
  const trusted: NoteVerifier[] = [];
  const reading = new Reading(checkpoint.ok ? checkpoint.value : undefined, kept);
  const history = new History(trusted, options.trusted ?? []);
  try {
    trusted.push(...options.trusted ?? readTrailKeys(checkpointDirectory));
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
  reading.checkTakenOut();
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
  const passed = async (bytes: number): Promise<void> => {
    bytesDone += bytes;
    if (bytesDone - bytesReported < PROGRESS_BYTES) return;
    bytesReported = bytesDone;
    progress?.(Math.min(bytesDone, bytesTotal), bytesTotal);
    await othersTurn();
  };
  for (let number = 1; number <= last && !reading.over; number++) {
    reading.beginSegment(number);
    using file = openExisting(`${directory}/${segmentName(number)}`);
    if (file === undefined) {
      reading.skip(readStub(directory, number), trusted);
      continue;
    }
    await readSegment(file, reading, number === last, passed);
    if (reading.over) return;
    if (reading.removedInSegment > 0) {
      const digest = digestOf(file);
      // Read after the file: the stub that is there by now names this file, as what is left or as what is replaced next.
      reading.checkStub(readStub(directory, number), digest, trusted);
    }
  }
  progress?.(bytesTotal, bytesTotal);
}

async function readSegment(
  file: Deno.FsFile,
  reading: Reading,
  isLast: boolean,
  passed: (bytes: number) => Promise<void>,
): Promise<void> {
  let offset = 0;
  let settled: { readonly offset: number; readonly place: Place } | undefined;
  for (let attempt = 1;; attempt++) {
    file.seekSync(offset, Deno.SeekMode.Start);
    for (const line of readLines(file)) {
      if (reading.isBehindCheckpoint) settled ??= { offset, place: reading.place() };
      // Of a write of several pages that nobody acknowledged, a power cut may leave a later one without an earlier one.
      const mayBeHole = isLast && attempt === ATTEMPTS && settled !== undefined && line.end === "line_feed";
      if (mayBeHole && line.bytes.includes(0)) return reading.endTorn(file.statSync().size - offset);
      reading.takeLine(line, isLast);
      if (reading.over) break;
      offset += line.bytes.length + 1;
      await passed(line.bytes.length + 1);
    }
    if (!reading.over || settled === undefined || attempt === ATTEMPTS) return;
    await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
    offset = settled.offset;
    reading.goBack(settled.place);
  }
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

/** A checkpoint of the history that a trusted key has signed. */
interface SignedNote {
  readonly each: HistoryNote;
  readonly head: SignedHead;
}

/** The notes of a history: those that a trusted key has signed, and the others. */
class History {
  /** Grows where a trusted key names its successor. */
  readonly #trusted: NoteVerifier[];
  /** The newest last. */
  readonly #pinned: readonly NoteVerifier[];
  readonly #signed: SignedNote[] = [];
  readonly #unknown: HistoryNote[] = [];
  readonly #successions: Succession[] = [];
  /** How many entries there were when the trail had changed from a key to a later one. */
  readonly #retiredAt = new Map<NoteVerifier, number>();
  #finding: Finding | undefined;
  #count = 0;

  constructor(trusted: NoteVerifier[], pinned: readonly NoteVerifier[]) {
    this.#trusted = trusted;
    this.#pinned = pinned;
  }

  get finding(): Finding | undefined {
    return this.#finding;
  }

  get count(): number {
    return this.#count;
  }

  take(each: HistoryNote): void {
    this.#count++;
    const { note = "" } = each;
    const learnt = followVouchers(vouchersIn(note), this.#trusted);
    this.#successions.push(...learnt);
    const opened = openTreeHead(note, this.#trusted);
    if (opened.ok) {
      this.#signed.push({ each, head: opened.value });
      // Only a successor says when: a voucher alone says nothing of this trail.
      for (const { by } of learnt) {
        if (this.#isBySuccessorOf(by, opened.value)) this.#retire(by, opened.value);
      }
    } else if (opened.reason === "unknown_key") {
      this.#unknown.push(each);
    } else {
      const words = opened.reason === "forged"
        ? "the checkpoint's signature is wrong"
        : "the line is no checkpoint";
      this.#find("checkpoint_forged", each, words);
    }
  }

  #retire(key: NoteVerifier, { size }: SignedHead): void {
    this.#retiredAt.set(key, Math.min(size, this.#retiredAt.get(key) ?? size));
  }

  /** All checkpoints, by their sizes. One that nobody known has signed must be covered by a newer one. */
  settle(): readonly ExpectedHead[] {
    this.#requireNewestKey();
    const signed = this.#signed.map(({ each, head }): ExpectedHead => {
      const isRetired = head.signedBy.every((key) => head.size > (this.#retiredAt.get(key) ?? Infinity));
      if (isRetired) {
        const words = "the checkpoint is signed by a key that had been replaced before, and by no later one";
        this.#find("checkpoint_retired", each, words);
      }
      return { ...head, place: each, isTrusted: !isRetired };
    });
    const sizeMax = signed.reduce((most, { size }) => Math.max(most, size), -1);
    const unknown: ExpectedHead[] = [];
    for (const each of this.#unknown) {
      const head = treeHeadOf(each.note ?? "");
      if (head === undefined) this.#find("checkpoint_forged", each, "the line is no checkpoint");
      else if (head.size > sizeMax) {
        this.#find("checkpoint_untrusted", each, "no trusted key has signed this checkpoint");
      } else unknown.push({ ...head, place: each, isTrusted: false });
    }
    return [...signed, ...unknown];
  }

  /** Or an older key of those that were given, which somebody may have stolen, would be good for ever. */
  #requireNewestKey(): void {
    const [first, ...others] = this.#signed;
    if (first === undefined) return;
    const newest = others.reduce((most, next) => next.head.size >= most.head.size ? next : most, first);
    const names = newest.head.signedBy.map(({ name }) => name);
    const given = this.#pinned.findLast(({ name }) => names.includes(name));
    const key = this.#trusted.find((each) => given !== undefined && isSameKey(each, given));
    if (key === undefined || newest.head.signedBy.includes(key) || this.#isBySuccessorOf(key, newest.head)) {
      return;
    }
    const words =
      "the newest checkpoint is not signed by the newest of the keys that were given (the last one), nor by one after it: somebody signs " +
      "with a key that was replaced, or the trail is older than that key (give the ones before it alone then)";
    this.#find("checkpoint_retired", newest.each, words);
  }

  #isBySuccessorOf(key: NoteVerifier, { signedBy }: SignedHead): boolean {
    const successors = new Set([key]);
    // A set goes on over what is added meanwhile.
    for (const each of successors) {
      for (const { by, next } of this.#successions) if (by === each) successors.add(next);
    }
    successors.delete(key);
    return signedBy.some((each) => successors.has(each));
  }

  #find(kind: FindingKind, { file, line }: HistoryNote, words: string): void {
    this.#finding ??= { kind, segment: file, line, seq: 0, words };
  }
}

/** What a reading has seen so far. */
interface Seen {
  /** Of the checkpoints that are expected, those before this one were met or passed over. */
  next: number;
  segment: number;
  line: number;
  isStub: boolean;
  removed: number;
  removedInSegment: number;
  firstTime: string | undefined;
  lastTime: string | undefined;
  checkpoints: number;
  signed: TreeHead | undefined;
  kept: KeptHead | undefined;
  unprovable: number;
  tornTail: TornTail | undefined;
  /** The last entry of which nobody can read what it was about, where it may have been a record of what was taken out. */
  lastOpaque: number;
  /** By segment: how many entries were taken out of it, by the records that can be read. */
  recorded: ReadonlyMap<number, number>;
}

/** Where a reading stood. */
interface Place {
  readonly walk: TrailWalk;
  readonly seen: Seen;
}

/** What was taken out of a segment, by its stub. */
interface TakenOut {
  readonly segment: number;
  readonly first: number;
  readonly last: number;
  readonly removed: number;
  /** When the stub was made, which is behind the record. */
  readonly made: string;
}

/** How far a verification has come. The first finding ends it. */
class Reading {
  #walk = new TrailWalk((seq, hash) => this.#meet(seq, hash));
  readonly #checkpoint: Checkpoint | undefined;
  /** By size. */
  #expected: readonly ExpectedHead[];
  /** The index of the largest one that was kept elsewhere. */
  #lastKept = -1;
  #seen: Seen = {
    next: 0,
    segment: 0,
    line: 0,
    isStub: false,
    removed: 0,
    removedInSegment: 0,
    firstTime: undefined,
    lastTime: undefined,
    checkpoints: 0,
    signed: undefined,
    kept: undefined,
    unprovable: 0,
    tornTail: undefined,
    lastOpaque: 0,
    recorded: new Map(),
  };
  readonly #takenOut: TakenOut[] = [];
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
    return this.#seen.removedInSegment;
  }

  /** Whether everything that the checkpoint has seen was read: what follows may be on its way. */
  get isBehindCheckpoint(): boolean {
    return this.#checkpoint !== undefined && this.#walk.head.seq >= this.#checkpoint.seq;
  }

  /** Where it stands. */
  place(): Place {
    return { walk: this.#walk.copy(), seen: { ...this.#seen } };
  }

  /** Forgets what it has found behind a place of the present segment. */
  goBack({ walk, seen }: Place): void {
    this.#walk = walk.copy();
    this.#seen = { ...seen };
    this.#finding = undefined;
  }

  verdict(): ChainVerdict {
    const { head, origin } = this.#walk;
    const { removed, segment, firstTime, lastTime, checkpoints, signed, kept, unprovable, tornTail } =
      this.#seen;
    return {
      origin,
      entries: head.seq,
      removed,
      segments: segment,
      firstTime,
      lastTime,
      head,
      checkpoint: this.#checkpoint,
      checkpoints,
      signed,
      kept,
      unprovable,
      tornTail,
      finding: this.#finding,
    };
  }

  /** Takes the signed checkpoints, which the tree must pass through like those that were kept. */
  expect(heads: readonly ExpectedHead[]): void {
    this.#expected = [...this.#expected, ...heads].sort((left, right) => left.size - right.size);
    this.#lastKept = this.#expected.findLastIndex(({ place }) => place === undefined);
    this.#meet(0, CHAIN_START.hash);
  }

  beginSegment(number: number): void {
    Object.assign(this.#seen, { segment: number, line: 0, isStub: false, removedInSegment: 0 });
    this.#walk.beginSegment(number);
  }

  takeLine(line: Line, inLastSegment: boolean): void {
    const seen = this.#seen;
    seen.line++;
    if (line.end === "end_of_file" && inLastSegment) return this.#tear(line.bytes.length);
    if (line.end !== "line_feed") return this.find("edited", "the line has no end");
    const taken = this.#walk.take(line.bytes);
    if (isMistake(taken)) {
      this.find(taken.kind, taken.words, taken.seq);
    } else if (taken.kind === "removed") {
      seen.removedInSegment += taken.removed.removed.length;
      seen.removed += taken.removed.removed.length;
      seen.lastOpaque = this.#walk.head.seq;
    } else if (taken.kind === "entry") {
      seen.firstTime ??= taken.entry.time;
      seen.lastTime = taken.entry.time;
      this.#takeRecord(taken.entry);
    }
  }

  /** The rest of the last segment was never acknowledged. */
  endTorn(bytes: number): void {
    this.#seen.line++;
    this.#tear(bytes);
  }

  #tear(bytes: number): void {
    this.#seen.tornTail = { segment: this.#fileName(), line: this.#seen.line, bytes };
  }

  #takeRecord({ seq, event }: ChainEntry): void {
    const { type, segment, removed } = event;
    if (isSealed(event) && event.class === "activity") this.#seen.lastOpaque = seq;
    if (type !== "trail.thinned" || typeof segment !== "number" || typeof removed !== "number") return;
    const { recorded } = this.#seen;
    this.#seen.recorded = new Map(recorded).set(segment, removed + (recorded.get(segment) ?? 0));
  }

  /** A segment without its file. */
  skip(stub: Stub | undefined, trusted: readonly NoteVerifier[]): void {
    if (stub === undefined) {
      return this.find(
        "segment_missing",
        `the segment is missing, and no stub says that it may be${COPY_WORDS}`,
      );
    }
    this.#seen.isStub = true;
    if (stub.file !== undefined) {
      return this.find(
        "segment_missing",
        `the segment is missing, though its stub says that entries were kept${COPY_WORDS}`,
      );
    }
    const before = this.#walk.head.seq;
    const words = forgedWords(stub, trusted) ?? this.#walk.skip(stub)?.words;
    if (words !== undefined) return this.find("stub_wrong", words);
    const removed = stub.last - before;
    this.#seen.removed += removed;
    this.#seen.lastOpaque = stub.last;
    this.#takenOut.push({ ...stub, removed });
    this.#meet(stub.last, stub.hash);
  }

  /** A segment of which entries were taken out, when it was read to its end. */
  checkStub(stub: Stub | undefined, digest: string, trusted: readonly NoteVerifier[]): void {
    if (stub === undefined) {
      return this.find(
        "stub_missing",
        `entries were taken out, and no stub says that they may be${COPY_WORDS}`,
        this.#walk.headBefore.seq + 1,
      );
    }
    Object.assign(this.#seen, { isStub: true, line: 0 });
    const words = forgedWords(stub, trusted) ??
      this.#walk.checkStub(stub)?.words ??
      (digest === stub.replaced || (digest === stub.file?.sha256 && stub.removed === this.removedInSegment)
        ? undefined
        : `the segment is not what the stub says was left of it${COPY_WORDS}`);
    if (words !== undefined) return this.find("stub_wrong", words, this.#walk.headBefore.seq + 1);
    this.#takenOut.push({ ...stub, removed: this.removedInSegment });
  }

  /**
   * The trail itself says of each entry that went that it goes, before it goes. Those records go in their turn: they are only looked at where
   * all that is behind the segment can be read, and reaches beyond the stub (in a copy it may not).
   */
  checkTakenOut(): void {
    const { recorded, lastOpaque, lastTime = "" } = this.#seen;
    for (const { segment, first, last, removed, made } of this.#takenOut) {
      const known = recorded.get(segment) ?? 0;
      if (lastOpaque > last || lastTime <= made || known >= removed) continue;
      const words =
        `${removed} entries were taken out of the segment, and the trail has records of ${known}: the others were taken out by somebody else`;
      this.note({ kind: "stub_wrong", segment: stubName(segment), line: 0, seq: first, words });
    }
  }

  /** Notes a finding at the present place, unless there is one already. */
  find(kind: FindingKind, words: string, seq: number = this.#walk.head.seq + 1): void {
    this.note({
      kind,
      segment: this.#seen.segment === 0 ? "" : this.#fileName(),
      line: this.#seen.line,
      seq,
      words,
    });
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
    const missed = this.#expected[this.#seen.next];
    if (missed !== undefined) this.#findCut(this.#fileName(), missed.size, `${placeWords(missed)} has`);
  }

  /** Entries that nobody has signed can be anybody's. */
  requireSigned(): void {
    const seq = this.#walk.head.seq;
    if (seq === 0 || this.#seen.signed !== undefined) return;
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
    for (let head = this.#expected[this.#seen.next]; head !== undefined && head.size <= seq;) {
      if (head.size === seq) this.#compare(head, root ??= range.root());
      else this.#pass(head);
      head = this.#expected[++this.#seen.next];
    }
  }

  #compare(head: ExpectedHead, root: string): void {
    const { size, place } = head;
    const origin = this.#walk.origin ?? head.origin;
    if (head.root !== root || (head.origin ?? origin) !== origin) {
      const good = Math.max(this.#seen.signed?.size ?? 0, this.#seen.kept?.size ?? 0);
      const which = good === 0 ? `the first ${size} entries` : `entries ${good + 1} to ${size}`;
      return this.find(
        "rewritten",
        `${which} are not those that ${
          placeWords(head)
        } has seen: at least one of them was changed or written anew`,
        good + 1,
      );
    }
    if (place === undefined) this.#seen.kept = head;
    else this.#seen.checkpoints++;
    if (head.isTrusted && head.origin !== undefined) this.#seen.signed = { origin: head.origin, size, root };
  }

  /** Whatever it has seen is gone; a larger one that was kept as well stands for it. */
  #pass(head: ExpectedHead): void {
    this.#seen.unprovable++;
    if (this.#seen.next !== this.#lastKept) return;
    this.find(
      "kept_unprovable",
      `the checkpoint that was kept has seen ${head.size} entries, and the segment with the last of them was taken out as a whole: keep a newer one`,
      head.size,
    );
  }

  #fileName(): string {
    return this.#seen.isStub ? stubName(this.#seen.segment) : segmentName(this.#seen.segment);
  }
}

/** What a copy looks like in which files are of different moments. */
const COPY_WORDS =
  " (is this a copy that was made while the server ran? copy the files `*.stub` and those of this segment again)";

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
