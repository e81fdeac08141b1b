// Trail end: finds where a trail goes on, checking all of it from the oldest checkpoint that it must reach. Changes nothing.
import { Fault } from "../../faults/fault.ts";
import type { Checkpoint } from "./checkpoint.ts";
import { CHAIN_START, type ChainEntry, type ChainHead, checkLink, parseEntry } from "./hash_chain.ts";
import { CompactRange } from "./merkle_tree.ts";
import { intentStepOf, type OpenIntent } from "./open_intents.ts";
import { isRemovedLine, parseRemovedLine } from "./removed_line.ts";
import { isSealed, openEvent } from "./sealed_event.ts";
import {
  type HeaderMistake,
  headerOf,
  type Line,
  parseHeader,
  readLines,
  type SegmentHeader,
  segmentName,
  segmentNumber,
} from "./segment_files.ts";
import { readStub } from "./segment_stub.ts";
import type { TreeHead } from "./tree_head.ts";

/** Where the next entry goes. */
export interface TrailEnd {
  /** The segment's number. */
  readonly number: number;
  /** Bytes of that segment which are whole lines. */
  readonly size: number;
  /** Undefined where that segment has none yet: it was never written to, or a crash came before. */
  readonly header: SegmentHeader | undefined;
  /** Undefined in a trail without a segment. */
  readonly origin: string | undefined;
  readonly head: ChainHead;
  /** Time of the last entry read, or of the segment's header; ISO 8601. */
  readonly time: string | undefined;
  readonly range: CompactRange;
  /** Intents without outcome by their requests, in the order of their numbers. */
  readonly open: ReadonlyMap<string, OpenIntent>;
}

/** What is remembered of a trail outside its folders: whoever can write there cannot take it back. */
export interface RememberedTrail {
  /** What this process has acknowledged last. */
  readonly reached?: TreeHead;
  /** The newest signed checkpoint that was durable. */
  readonly signed?: TreeHead;
}

/** What is known of a trail besides its segments. */
export interface TrailWitnesses {
  readonly checkpoint: Checkpoint;
  /** The newest signed checkpoint that stands beside the trail. */
  readonly signed: TreeHead | undefined;
  /** Whether a key of this installation has signed it. */
  readonly isSignedByUs: boolean;
  readonly remembered: RememberedTrail;
  /** Raw sealing keys by their ids. */
  readonly sealingKeys: ReadonlyMap<string, Uint8Array>;
}

/** A state that the trail must have gone through. */
interface Witness extends Omit<TreeHead, "origin"> {
  /** Undefined where it does not say. */
  readonly origin: string | undefined;
  /** Undefined where the root alone says it. */
  readonly hash: string | undefined;
  /** Who says so. */
  readonly words: string;
  /** Whether whoever can write the folders could not have made it up. */
  readonly isVouched: boolean;
}

/** Entries that can have been acknowledged before the first checkpoint is signed, which is behind the first batch. */
const UNSIGNED_MAX = 10_000;

const LOST =
  "put the newest audit and audit-checkpoint back; where they are lost, keep what is left of them outside of the data folder, and " +
  "start once with PORTCULLIS_AUDIT_LOST_TRAIL=begin: a new trail begins";

const OLDER_FORMAT =
  "it is of the format before version 2: verify it with the version that wrote it, then move " +
  "audit and audit-checkpoint out of the data folder and keep them; this version begins a new trail";

/**
 * Refuses a trail of an older format.
 *
 * @throws Fault `unavailable`
 */
export function refuseOlderFormat(directory: string, numbers: readonly number[]): void {
  for (const number of numbers.slice(0, 1)) {
    using file = Deno.openSync(`${directory}/${segmentName(number)}`, { read: true });
    for (const { bytes, end } of readLines(file)) {
      if (end === "line_feed" && isMistaken(bytes, "older_format")) refuse(OLDER_FORMAT);
      return;
    }
  }
}

function isMistaken(line: Uint8Array, mistake: HeaderMistake): boolean {
  const header = parseHeader(line);
  return !header.ok && header.reason === mistake;
}

/**
 * Refuses to begin a trail where one is remembered.
 *
 * @throws Fault `unavailable`
 */
export function refuseLostTrail({ reached, signed }: RememberedTrail): void {
  const known = reached ?? signed;
  if (known === undefined) return;
  refuse(`there is none, and the server remembers one of ${known.size} entries (${known.origin}): ${LOST}`);
}

/**
 * Finds the last whole entry and what all before it amounts to.
 *
 * @param numbers of the segments, ascending
 * @throws Fault `unavailable` when anything but a torn tail is wrong
 */
export function findTrailEnd(
  directory: string,
  numbers: readonly number[],
  witnesses: TrailWitnesses,
): TrailEnd {
  const { checkpoint, signed, isSignedByUs, remembered, sealingKeys } = witnesses;
  requireAll(directory, numbers);
  if (checkpoint.seq > 0 && (segmentNumber(checkpoint.segment) ?? 0) > (numbers.at(-1) ?? 0)) {
    refuse(`${checkpoint.segment}, which holds the checkpoint's entry, is missing`);
  }
  const all = witnessesOf(witnesses);
  const reading = new Reading(directory, numbers, all, sealingKeys);
  const first = firstToRead(directory, numbers, Math.min(...all.map(({ size }) => size)));
  for (const number of numbers.filter((each) => each >= first)) reading.readSegment(number);
  const end = reading.end();
  for (const { size, words } of all) {
    if (end.head.seq < size) refuse(`it ends before entry ${size}, which ${words}: its end was cut off`);
  }
  reading.requireMet();
  const signedSize = isSignedByUs ? signed?.size ?? 0 : 0;
  if (remembered.signed !== undefined && signedSize < remembered.signed.size) {
    refuse(
      `signed checkpoints were taken away: the newest one is of ${signedSize} entries, and the server remembers one of ` +
        `${remembered.signed.size}; ${LOST}`,
    );
  }
  if (signedSize === 0 && (end.number > 1 || end.head.seq > UNSIGNED_MAX)) {
    refuse(
      `it has ${end.head.seq} entries, and no checkpoint that a key of this installation has signed: put checkpoints-*.jsonl (or the ` +
        "store, with the keys) back; where they are lost, keep audit and audit-checkpoint outside of the data folder, and start " +
        "without them",
    );
  }
  return end;
}

/** All that the trail must have gone through. */
function witnessesOf(
  { checkpoint, signed, isSignedByUs, remembered }: TrailWitnesses,
): readonly Witness[] {
  const { seq, hash, root } = checkpoint;
  const of = (head: TreeHead | undefined, words: string, isVouched: boolean): Witness[] =>
    head === undefined ? [] : [{ ...head, hash: undefined, words, isVouched }];
  const server = `the server remembers (${LOST})`;
  return [
    { origin: undefined, size: seq, hash, root, words: "the checkpoint has seen", isVouched: false },
    ...of(signed, "a signed checkpoint has seen", isSignedByUs),
    ...of(remembered.signed, server, true),
    ...of(remembered.reached, server, true),
  ];
}

/** A segment may lack where a stub stands in its place. */
function requireAll(directory: string, numbers: readonly number[]): void {
  const present = new Set(numbers);
  for (let number = 1; number < (numbers.at(-1) ?? 0); number++) {
    if (present.has(number) || readStub(directory, number) !== undefined) continue;
    refuse(`segment ${segmentName(number)} is missing`);
  }
}

/** The newest segment that begins before an entry or with it, by its own words; else the first that is there. */
function firstToRead(directory: string, numbers: readonly number[], seq: number): number {
  const first = numbers.toReversed().find((number) => (headerOf(directory, number)?.seq ?? seq) < seq);
  return first ?? numbers[0] ?? 1;
}

class Reading {
  readonly #directory: string;
  readonly #numbers: readonly number[];
  readonly #witnesses: readonly Witness[];
  readonly #sealingKeys: ReadonlyMap<string, Uint8Array>;
  /** Entries before the first segment that was read. */
  #before = 0;
  /** Undefined until the first header is read: what stands before it is taken from its words. */
  #head: ChainHead | undefined;
  #range = new CompactRange();
  #open = new Map<string, OpenIntent>();
  /** Whether an intent or an outcome may have gone by unseen, because its key is gone, or itself. */
  #someUnread = false;
  /** Open intents that were taken out of their segments: nobody will ever know whose they were. */
  readonly #gone = new Set<number>();
  #origin: string | undefined;
  #number = 1;
  #size = 0;
  #header: SegmentHeader | undefined;
  #time: string | undefined;

  constructor(
    directory: string,
    numbers: readonly number[],
    witnesses: readonly Witness[],
    sealingKeys: ReadonlyMap<string, Uint8Array>,
  ) {
    this.#directory = directory;
    this.#numbers = numbers;
    this.#witnesses = witnesses;
    this.#sealingKeys = sealingKeys;
  }

  /** What stands before the first segment that is there cannot be compared: then somebody must vouch for a later state. */
  requireMet(): void {
    const missed = this.#witnesses.find(({ size }) => size < this.#before);
    if (missed === undefined) return;
    if (this.#witnesses.some(({ size, isVouched }) => isVouched && size >= this.#before)) return;
    refuse(`it begins behind entry ${missed.size}, which ${missed.words}: its beginning was taken away`);
  }

  end(): TrailEnd {
    // A header alone is what is left of a torn write: the first entry comes later than it says, and brings another.
    const isBare = this.#header !== undefined && this.#head?.seq === this.#header.seq;
    return {
      number: this.#number,
      size: isBare ? 0 : this.#size,
      header: isBare ? undefined : this.#header,
      origin: this.#origin,
      head: this.#head ?? CHAIN_START,
      time: this.#time,
      range: this.#range,
      open: this.#open,
    };
  }

  readSegment(number: number): void {
    this.#number = number;
    this.#size = 0;
    this.#header = undefined;
    let lineNumber = 0;
    using file = Deno.openSync(`${this.#directory}/${segmentName(number)}`, { read: true });
    for (const line of readLines(file)) {
      lineNumber++;
      if (number === this.#numbers.at(-1) && this.#isTorn(line)) break;
      const place = `${segmentName(number)} line ${lineNumber}`;
      if (line.end !== "line_feed") refuse(`${place} is not whole and is not at the end of the trail`);
      if (lineNumber === 1) this.#takeHeader(place, line.bytes);
      else if (isRemovedLine(line.bytes)) this.#takeRemoved(place, line.bytes);
      else this.#takeEntry(place, line.bytes);
      this.#size += line.bytes.length + 1;
    }
    if (this.#header === undefined && number !== this.#numbers.at(-1)) {
      refuse(`${segmentName(number)} is empty and is not at the end of the trail`);
    }
  }

  /**
   * Whether the tail of the trail, from this line on, is what a crash has left: half a line or, of a batch of which a power cut let
   * only later pages reach the disk, a line with zero bytes. What was acknowledged does not look so.
   */
  #isTorn({ bytes, end }: Line): boolean {
    if (end === "end_of_file") return true;
    const seq = this.#head?.seq ?? 0;
    return this.#witnesses.every(({ size }) => size <= seq) && bytes.includes(0);
  }

  #takeHeader(place: string, line: Uint8Array): void {
    const header = parseHeader(line);
    if (!header.ok) refuse(`${place} is no header as it was written (${header.reason})`);
    const { segment, origin, seq, previous, range, open, time } = header.value;
    if (segment !== this.#number) refuse(`${place} is the header of another segment`);
    if (this.#head === undefined && segment !== 1) {
      this.#begin(place, header.value);
    } else {
      const head = this.#head ?? CHAIN_START;
      const differs = seq !== head.seq
        ? "seq"
        : previous !== head.hash
        ? "previous"
        : !areEqual(range, this.#range.hashes)
        ? "range"
        : origin !== (this.#origin ?? origin)
        ? "origin"
        : !this.#someUnread && !areEqual(this.#present(open), this.#openSeqs())
        ? "open"
        : undefined;
      if (differs !== undefined) refuse(`${place} does not continue the trail (${differs})`);
      if (this.#someUnread) this.#adopt(open);
      this.#head = head;
    }
    this.#origin = origin;
    const other = this.#witnesses.find((witness) => (witness.origin ?? origin) !== origin);
    if (other !== undefined) refuse(`it is another trail than the one that ${other.words}`);
    this.#header = header.value;
    this.#time = time;
    this.#compare(place);
  }

  /** Begins with a segment in the midst of the trail. */
  #begin(place: string, { segment, seq, previous, range, open }: SegmentHeader): void {
    this.#head = { seq, hash: previous };
    this.#before = seq;
    try {
      this.#range = new CompactRange(seq, range);
    } catch {
      refuse(`${place} has no compact range of ${seq} entries`);
    }
    const older = this.#numbers.filter((number) => number < segment).reverse();
    const events = this.#readIntents(older, open);
    for (const number of this.#present(open)) {
      const event = events.get(number);
      this.#someUnread ||= event === undefined;
      // No request is called so.
      this.#open.set(event?.request ?? `#${number}`, { seq: number, event: event?.event });
    }
  }

  /** Without those that were taken out. */
  #present(open: readonly number[]): readonly number[] {
    return open.filter((seq) => !this.#gone.has(seq));
  }

  #openSeqs(): readonly number[] {
    return [...this.#open.values()].map(({ seq }) => seq);
  }

  /** The header's writer had seen what went by unseen here. */
  #adopt(open: readonly number[]): void {
    const seen = new Map(
      [...this.#open].map(([request, intent]) => [intent.seq, [request, intent] as const]),
    );
    this.#open = new Map(
      this.#present(open).map((seq) => seen.get(seq) ?? [`#${seq}`, { seq, event: undefined }]),
    );
    this.#someUnread = [...this.#open.values()].some(({ event }) => event === undefined);
  }

  #takeEntry(place: string, line: Uint8Array): void {
    const entry = parseEntry(line);
    if (!entry.ok) refuse(`${place} is no entry as it was written (${entry.reason})`);
    const link = checkLink(entry.value, this.#head ?? CHAIN_START);
    if (!link.ok) refuse(`${place} does not continue the chain (${link.reason})`);
    const { seq, time } = this.#header ?? {};
    if (entry.value.seq - 1 === seq && entry.value.time !== time) {
      refuse(`${place} is not of its header's time`);
    }
    this.#head = link.value;
    this.#range.append(link.value.hash);
    this.#time = entry.value.time;
    this.#compare(place);
    const event = this.#openedEvent(entry.value);
    const step = event && intentStepOf(event);
    if (step === undefined) return;
    this.#open.delete(step.request);
    if (step.opens) this.#open.set(step.request, { seq: entry.value.seq, event });
  }

  /** Steps over entries that retention took out: chain and tree go on. */
  #takeRemoved(place: string, line: Uint8Array): void {
    if (this.#number === this.#numbers.at(-1) || readStub(this.#directory, this.#number) === undefined) {
      refuse(`${place} stands for entries that were taken out, and there is no stub that says they may be`);
    }
    const removed = parseRemovedLine(line);
    if (removed?.seq !== (this.#head?.seq ?? 0) + 1) {
      refuse(`${place} does not stand for removed entries as it was written`);
    }
    for (const [index, hash] of removed.removed.entries()) {
      this.#head = { seq: removed.seq + index, hash };
      this.#range.append(hash);
      this.#compare(place);
    }
    this.#someUnread = true;
  }

  /** Compares with what is known of the trail at this length. */
  #compare(place: string): void {
    const { seq, hash } = this.#head ?? CHAIN_START;
    for (const { size, hash: seen = hash, root, words } of this.#witnesses) {
      if (size === seq && (seen !== hash || root !== this.#range.root())) {
        refuse(`${place} is not the entry that ${words}`);
      }
    }
  }

  /** Undefined where it is sealed and cannot be about an intent, or cannot be read. */
  #openedEvent({ seq, event }: ChainEntry): ChainEntry["event"] | undefined {
    if (!isSealed(event)) return event;
    if (event.class === "security") return undefined; // no intent is
    try {
      return openEvent(this.#sealingKeys, seq, event);
    } catch {
      this.#someUnread = true;
      return undefined;
    }
  }

  /**
   * Finds intents in older segments, and notes those that were taken out. Those that cannot be read any more are left out.
   *
   * @param numbers of the segments, descending
   */
  #readIntents(
    numbers: readonly number[],
    open: readonly number[],
  ): Map<number, { request: string; event: ChainEntry["event"] }> {
    const found = new Map<number, { request: string; event: ChainEntry["event"] }>();
    let wanted = open;
    for (const number of numbers) {
      if (wanted.length === 0) break;
      const before = headerOf(this.#directory, number)?.seq ?? Infinity;
      const here = new Set(wanted.filter((seq) => seq > before));
      if (here.size === 0) continue;
      using file = Deno.openSync(`${this.#directory}/${segmentName(number)}`, { read: true });
      for (const { bytes } of readLines(file)) {
        if (!here.has(seqAtEnd(bytes))) continue;
        const entry = parseEntry(bytes);
        if (!entry.ok || !here.delete(entry.value.seq)) continue;
        const event = this.#openedEvent(entry.value);
        const step = event && intentStepOf(event);
        if (event !== undefined && step?.opens === true) {
          found.set(entry.value.seq, { request: step.request, event });
        }
        if (here.size === 0) break;
      }
      for (const seq of here) this.#gone.add(seq);
      wanted = wanted.filter((seq) => seq <= before);
    }
    // Their segments are gone as a whole.
    for (const seq of wanted) this.#gone.add(seq);
    return found;
  }
}

const latin1 = new TextDecoder("latin1");
const SEQ_AT_END = /"seq":(\d+),"time":"[^"]{24}"\}$/;

/** The number of the entry in a line, without parsing all of it; NaN where there is none. */
function seqAtEnd(line: Uint8Array): number {
  return Number(SEQ_AT_END.exec(latin1.decode(line.subarray(-64)))?.[1]);
}

function areEqual<Value>(left: readonly Value[], right: readonly Value[]): boolean {
  return left.length === right.length && left.every((each, index) => each === right[index]);
}

function refuse(state: string): never {
  throw new Fault("unavailable", `Cannot open the audit trail: ${state}`);
}
