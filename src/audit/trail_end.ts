// Trail end: finds where a trail goes on, checking all of it from the checkpoint's segment on. Changes nothing.
import { Fault } from "../faults/fault.ts";
import type { Checkpoint } from "./checkpoint.ts";
import { CHAIN_START, type ChainEntry, type ChainHead, checkLink, parseEntry } from "./hash_chain.ts";
import { CompactRange } from "./merkle_tree.ts";
import { intentStepOf, type OpenIntent } from "./open_intents.ts";
import { isSealed, openEvent } from "./sealed_event.ts";
import {
  type HeaderMistake,
  parseHeader,
  readLines,
  type SegmentHeader,
  segmentName,
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

/** What is known of a trail besides its segments. */
export interface TrailWitnesses {
  readonly checkpoint: Checkpoint;
  /** The newest signed checkpoint. */
  readonly signed: TreeHead | undefined;
  /** Raw sealing keys by their ids. */
  readonly sealingKeys: ReadonlyMap<string, Uint8Array>;
}

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
  const { checkpoint, signed } = witnesses;
  requireAll(directory, numbers);
  const first = checkpoint.seq === 0
    ? 1
    : numbers.find((number) => segmentName(number) === checkpoint.segment);
  if (first === undefined) refuse(`${checkpoint.segment}, which holds the checkpoint's entry, is missing`);

  const reading = new Reading(directory, numbers, witnesses);
  for (const number of numbers.filter((each) => each >= first)) reading.readSegment(number);
  const end = reading.end();
  if (end.head.seq < checkpoint.seq) {
    refuse(`it ends before entry ${checkpoint.seq}, which the checkpoint has seen: its end was cut off`);
  }
  if (signed !== undefined && end.head.seq < signed.size) {
    refuse(`it ends before entry ${signed.size}, which a signed checkpoint has seen: its end was cut off`);
  }
  if (signed !== undefined && signed.origin !== end.origin) {
    refuse("the signed checkpoints are those of another trail");
  }
  return end;
}

/** A segment may lack where a stub stands in its place. */
function requireAll(directory: string, numbers: readonly number[]): void {
  const present = new Set(numbers);
  for (let number = 1; number < (numbers.at(-1) ?? 0); number++) {
    if (present.has(number) || readStub(directory, number) !== undefined) continue;
    refuse(`segment ${segmentName(number)} is missing`);
  }
}

class Reading {
  readonly #directory: string;
  readonly #numbers: readonly number[];
  readonly #witnesses: TrailWitnesses;
  /** Undefined until the first header is read: what stands before it is taken from its words. */
  #head: ChainHead | undefined;
  #range = new CompactRange();
  #open = new Map<string, OpenIntent>();
  /** Whether an intent or an outcome may have gone by unseen, because its key is gone. */
  #someUnread = false;
  #origin: string | undefined;
  #number = 1;
  #size = 0;
  #header: SegmentHeader | undefined;
  #time: string | undefined;

  constructor(directory: string, numbers: readonly number[], witnesses: TrailWitnesses) {
    this.#directory = directory;
    this.#numbers = numbers;
    this.#witnesses = witnesses;
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
      if (line.end === "end_of_file" && number === this.#numbers.at(-1)) break; // a torn tail
      const place = `${segmentName(number)} line ${lineNumber}`;
      if (line.end !== "line_feed") refuse(`${place} is not whole and is not at the end of the trail`);
      if (lineNumber === 1) this.#takeHeader(place, line.bytes);
      else this.#takeEntry(place, line.bytes);
      this.#size += line.bytes.length + 1;
    }
    if (this.#header === undefined && number !== this.#numbers.at(-1)) {
      refuse(`${segmentName(number)} is empty and is not at the end of the trail`);
    }
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
        : !this.#someUnread && !areEqual(open, [...this.#open.values()].map((each) => each.seq))
        ? "open"
        : undefined;
      if (differs !== undefined) refuse(`${place} does not continue the trail (${differs})`);
      this.#head = head;
    }
    this.#origin = origin;
    this.#header = header.value;
    this.#time = time;
    this.#compare(place);
  }

  /** Begins with a segment in the midst of the trail. */
  #begin(place: string, { segment, seq, previous, range, open }: SegmentHeader): void {
    this.#head = { seq, hash: previous };
    try {
      this.#range = new CompactRange(seq, range);
    } catch {
      refuse(`${place} has no compact range of ${seq} entries`);
    }
    const older = this.#numbers.filter((number) => number < segment).reverse();
    const events = open.length === 0 ? new Map() : this.#readIntents(older, new Set(open));
    for (const number of open) {
      const event = events.get(number);
      // No request is called so.
      this.#open.set(event?.request ?? `#${number}`, { seq: number, event: event?.event });
    }
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

  /** Compares with what is known of the trail at this length. */
  #compare(place: string): void {
    const { checkpoint, signed } = this.#witnesses;
    const { seq, hash } = this.#head ?? CHAIN_START;
    if (seq === checkpoint.seq && (hash !== checkpoint.hash || this.#range.root() !== checkpoint.root)) {
      refuse(`${place} is not the entry that the checkpoint has seen`);
    }
    if (seq === signed?.size && this.#range.root() !== signed.root) {
      refuse(`${place} is not the entry that a signed checkpoint has seen`);
    }
  }

  /** Undefined where it is sealed and cannot be about an intent, or cannot be read. */
  #openedEvent({ seq, event }: ChainEntry): ChainEntry["event"] | undefined {
    if (!isSealed(event)) return event;
    if (event.class === "security") return undefined; // no intent is
    try {
      return openEvent(this.#witnesses.sealingKeys, seq, event);
    } catch {
      this.#someUnread = true;
      return undefined;
    }
  }

  /** Finds intents in older segments, the newest first. Those that cannot be read any more are left out. */
  #readIntents(
    numbers: readonly number[],
    wanted: Set<number>,
  ): Map<number, { request: string; event: ChainEntry["event"] }> {
    const found = new Map<number, { request: string; event: ChainEntry["event"] }>();
    for (const number of numbers) {
      if (wanted.size === 0) break;
      using file = Deno.openSync(`${this.#directory}/${segmentName(number)}`, { read: true });
      for (const { bytes } of readLines(file)) {
        if (!wanted.has(seqAtEnd(bytes))) continue;
        const entry = parseEntry(bytes);
        if (!entry.ok || !wanted.delete(entry.value.seq)) continue;
        const event = this.#openedEvent(entry.value);
        const step = event && intentStepOf(event);
        if (event !== undefined && step?.opens === true) {
          found.set(entry.value.seq, { request: step.request, event });
        }
      }
    }
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
