// Segment writer: appends batches to the trail's segment files; what it has taken is durable. Runs in the audit worker.
import { encodeUtf8 } from "../../encoding/utf8.ts";
import { Fault } from "../../faults/fault.ts";
import type { EventClass } from "../audit_event.ts";
import { CheckpointFile } from "./checkpoint.ts";
import { type ChainHead, extendChain } from "./hash_chain.ts";
import type { CompactRange } from "./merkle_tree.ts";
import type { IntentStep, OpenIntent } from "./open_intents.ts";
import { SEALED_EVENTS_MAX, sealEvent } from "./sealed_event.ts";
import {
  formatHeader,
  leadsTo,
  listSegments,
  reasonOf,
  segmentName,
  syncDirectory,
} from "./segment_files.ts";
import { SignedCheckpoints } from "./signed_checkpoints.ts";
import { findTrailEnd, refuseLostTrail, refuseOlderFormat, type RememberedTrail } from "./trail_end.ts";
import type { TrailKeys } from "../trail_keys.ts";
import type { TreeHead } from "./tree_head.ts";

/** Where the trail lies, how large its files grow, and with what it is signed and sealed. */
export interface SegmentWriterOptions {
  /** The segments' directory; it exists. */
  readonly directory: string;
  /** The checkpoint's directory; it exists, and is not the segments' one. */
  readonly checkpointDirectory: string;
  /** A segment that would grow beyond this many bytes is left and a new one begun; one batch is never split. */
  readonly segmentBytesMax: number;
  readonly keys: TrailKeys;
  /** Whether events are written sealed. */
  readonly sealed: boolean;
  /** All raw sealing keys by their ids: they tell which intents of a sealed trail are open. */
  readonly sealingKeys: ReadonlyMap<string, Uint8Array>;
  /** What the trail must have reached; absent: nothing is known of it. */
  readonly remembered?: RememberedTrail;
  /** Events that one key may seal, as this writer counts them; absent: as many as are safe. */
  readonly sealedEventsMax?: number;
}

/** An event on its way to the disk. */
export interface UnwrittenEvent {
  /** Wall time: milliseconds since 1970. */
  readonly timeMs: number;
  /** The event as canonical JSON. */
  readonly text: string;
  /** Stands beside a sealed event; without meaning where events are plain. */
  readonly class: EventClass;
  /** What it says about an intent. */
  readonly step: IntentStep | undefined;
}

/** As many bytes as a probe wants to find free: some dozens of entries. */
const PROBE_BYTES = 16 * 1024;

/** The one writer of a trail. */
export class SegmentWriter {
  readonly #options: SegmentWriterOptions;
  readonly #checkpoint: CheckpointFile;
  readonly #signed: SignedCheckpoints;
  readonly #origin: string;
  #keys: TrailKeys;
  #file: Deno.FsFile;
  #info: Deno.FileInfo;
  #number: number;
  /** Bytes of the segment that are whole lines and durable. */
  #size: number;
  /** UTC day of the segment's header; undefined where it has none yet: it comes with the first entry, in the same write. */
  #day: string | undefined;
  #head: ChainHead;
  /** Of the entries up to the head. */
  #root: string;
  /** Of the last entry; ISO 8601. */
  #time: string;
  #range: CompactRange;
  /** Numbers of intents without outcome, by their requests, ascending. */
  readonly #open: Map<string, number>;
  #interrupted: readonly OpenIntent[];
  /** There is no signed checkpoint yet, one failed, or the signing key has changed. */
  #signatureOwed = false;
  #sealedCount = 0;
  #usable = true;

  /**
   * Opens the trail behind its last whole entry. A torn tail, as a crash leaves it (half a line, a line without its
   * line feed, zero bytes), is cut off: it was never acknowledged. Entries are checked from the segment on that holds the
   * oldest of what they must reach: the checkpoint, the newest signed one, what is remembered. Older segments are
   * `verifyChain`'s matter.
   *
   * @throws Fault `unavailable` when anything else is wrong; nothing has been changed then
   */
  constructor(options: SegmentWriterOptions) {
    this.#options = options;
    this.#keys = options.keys;
    const { directory, checkpointDirectory, sealingKeys, remembered = {} } = options;
    const present = listSegments(directory);
    refuseOlderFormat(directory, present);
    if (present.length === 0) refuseLostTrail(remembered);
    this.#checkpoint = new CheckpointFile(checkpointDirectory, present.length === 0);
    try {
      this.#signed = new SignedCheckpoints(checkpointDirectory, options.keys);
      // Listed again, now that the lock keeps other writers out.
      const end = findTrailEnd(directory, listSegments(directory), {
        checkpoint: this.#checkpoint.checkpoint,
        signed: this.#signed.last,
        isSignedByUs: this.#signed.isOurs,
        remembered,
        sealingKeys,
      });
      this.#origin = end.origin ?? newOrigin(options.keys);
      this.#number = end.number;
      this.#size = end.size;
      this.#day = end.header && dayOf(end.header.time);
      this.#head = end.head;
      this.#time = end.time ?? "";
      this.#range = end.range;
      this.#root = end.range.root();
      this.#open = new Map([...end.open].map(([request, { seq }]) => [request, seq]));
      this.#interrupted = [...end.open.values()];
      this.#signatureOwed = this.#signed.last === undefined || this.#signed.isHandoverDue;
      this.#file = Deno.openSync(this.#path(), { read: true, append: true, create: true, mode: 0o600 });
      try {
        this.#file.truncateSync(end.size);
        // Whole entries found here may never have been synced, and so may the segment's own name.
        this.#file.syncSync();
        syncDirectory(directory);
        this.#info = this.#file.statSync();
      } catch (thrown) {
        this.#file.close();
        throw thrown;
      }
    } catch (thrown) {
      this.#checkpoint.close();
      throw asFault("open the audit trail", thrown);
    }
  }

  /** False after a failure that could not be undone: close this writer and open a new one. */
  get usable(): boolean {
    return this.#usable;
  }

  /** The last durable entry. */
  get head(): ChainHead {
    return this.#head;
  }

  /** What the next writer of this trail must find. */
  get remembered(): RememberedTrail {
    const reached = this.#treeHead();
    const { origin, size, root } = this.#signed.last ?? {};
    const signed = origin === undefined || size === undefined || root === undefined || !this.#signed.isOurs
      ? undefined
      : { origin, size, root };
    return { ...reached.size === 0 ? {} : { reached }, ...signed === undefined ? {} : { signed } };
  }

  /** Entries that no signed checkpoint has seen. */
  get unsigned(): number {
    return this.#head.seq - (this.#signed.last?.size ?? 0);
  }

  /** Whether a checkpoint should be signed at the next opportunity, however few entries are new. */
  get isSignatureOwed(): boolean {
    return this.#signatureOwed && this.#head.seq > 0;
  }

  /** Whether the sealing key has sealed half of what it may: time for a new one. */
  get isSealingKeyWorn(): boolean {
    return this.#sealedCount >= this.#sealedEventsMax() / 2;
  }

  /** The intents that were open when the trail was opened; told once. */
  takeInterrupted(): readonly OpenIntent[] {
    const interrupted = this.#interrupted;
    this.#interrupted = [];
    return interrupted;
  }

  /** The number of a request's intent, while it has no outcome. */
  openIntent(request: string): number | undefined {
    return this.#open.get(request);
  }

  /**
   * Appends entries with one write and one sync. When it returns they are durable, in their order, and the files are
   * where they belong.
   *
   * @throws Fault `unavailable` when not: then the entries are not in the trail, or (rarely, when only what follows
   * the sync failed) they are, though nobody was told
   */
  append(events: readonly UnwrittenEvent[]): void {
    // Before the attempt: that a key is worn is no failure of the disk.
    const texts = events.map((event, index) => this.#textOf(event, this.#head.seq + 1 + index));
    this.#attempt(() => {
      const range = this.#range.copy();
      let head = this.#head;
      let time = this.#time;
      let lines = "";
      for (const [index, { timeMs }] of events.entries()) {
        time = new Date(timeMs).toISOString();
        const next = extendChain(head, time, texts[index] ?? "");
        lines += next.line;
        head = next.head;
        range.append(head.hash);
      }
      let bytes = encodeUtf8(lines);
      const beganAt = new Date(events[0]?.timeMs ?? 0).toISOString();
      if (this.#isSegmentOver(beganAt, bytes.length)) this.#beginSegment();
      if (this.#day === undefined) bytes = encodeUtf8(`${this.#header(beganAt)}\n${lines}`);
      this.#writeDurably(bytes);
      this.#size += bytes.length;
      this.#day ??= dayOf(beganAt);
      this.#step(events);
      this.#head = head;
      this.#range = range;
      this.#root = range.root();
      this.#time = time;
      this.#writeCheckpoint();
    });
  }

  /**
   * Finds out whether an append would work, without an entry: writes zero bytes behind the last entry, syncs, takes
   * them back. A crash in between leaves a torn tail like any other.
   *
   * @throws Fault `unavailable` when it would not
   */
  probe(): void {
    this.#attempt(() => {
      this.#writeDurably(new Uint8Array(PROBE_BYTES));
      this.#file.truncateSync(this.#size);
      this.#writeCheckpoint();
    });
  }

  /**
   * Signs a checkpoint of the trail as it is; does nothing where that has been done.
   *
   * @throws Fault `unavailable` when it cannot be written: it is owed then. Entries are not concerned
   */
  sign(): void {
    if (this.unsigned === 0 && !this.#signed.isHandoverDue) return;
    this.#signatureOwed = true;
    try {
      this.#signed.sign(this.#treeHead(), this.#time);
    } catch (thrown) {
      throw asFault("write a signed audit checkpoint", thrown);
    }
    this.#signatureOwed = false;
  }

  /** From now on these sign and seal. */
  useKeys(keys: TrailKeys): void {
    if (keys.sealing?.id !== this.#keys.sealing?.id) this.#sealedCount = 0;
    this.#keys = keys;
    this.#signed.useKeys(keys);
    this.#signatureOwed ||= this.#signed.isHandoverDue;
  }

  /** Frees the files and the lock. */
  close(): void {
    this.#usable = false;
    this.#file.close();
    this.#checkpoint.close();
  }

  #sealedEventsMax(): number {
    return this.#options.sealedEventsMax ?? SEALED_EVENTS_MAX;
  }

  /** The event as the entry has it. */
  #textOf(event: UnwrittenEvent, seq: number): string {
    if (!this.#options.sealed) return event.text;
    const { sealing } = this.#keys;
    if (sealing === undefined || this.#sealedCount >= this.#sealedEventsMax()) {
      const state = sealing === undefined ? "there is no sealing key" : "its sealing key is worn";
      throw new Fault("unavailable", `Cannot write to the audit trail: ${state}`);
    }
    // Also where the batch fails: its bytes may have reached the disk.
    this.#sealedCount++;
    return sealEvent(sealing, seq, event.class, event.text);
  }

  /** Whether the next entries belong in a new segment: by size, or because a later day has begun. A clock that goes back begins none. */
  #isSegmentOver(time: string, bytes: number): boolean {
    return this.#day !== undefined &&
      (this.#size + bytes > this.#options.segmentBytesMax || dayOf(time) > this.#day);
  }

  /** Takes note of the intents and outcomes among the entries that come next. */
  #step(events: readonly UnwrittenEvent[]): void {
    for (const [index, { step }] of events.entries()) {
      if (step === undefined) continue;
      this.#open.delete(step.request);
      if (step.opens) this.#open.set(step.request, this.#head.seq + 1 + index);
    }
  }

  #header(time: string): string {
    return formatHeader({
      segment: this.#number,
      origin: this.#origin,
      seq: this.#head.seq,
      previous: this.#head.hash,
      range: this.#range.hashes,
      open: [...this.#open.values()],
      time,
    });
  }

  #treeHead(): TreeHead {
    return { origin: this.#origin, size: this.#head.seq, root: this.#root };
  }

  #writeCheckpoint(): void {
    this.#checkpoint.write({ ...this.#head, root: this.#root, segment: segmentName(this.#number) });
  }

  #path(): string {
    return `${this.#options.directory}/${segmentName(this.#number)}`;
  }

  /** A writer is unusable from the beginning of an act until its end, or until what failed is undone. */
  #attempt(act: () => void): void {
    if (!this.#usable) {
      throw new Fault("unavailable", "Cannot write to the audit trail: the writer is closed");
    }
    this.#usable = false;
    try {
      act();
      this.#usable = true;
    } catch (thrown) {
      throw asFault("write to the audit trail", thrown);
    }
  }

  /** Puts bytes behind the last entry; they are durable, and where they belong, when it returns. */
  #writeDurably(bytes: Uint8Array): void {
    try {
      // One write as a rule; the rest of a short one fails with the reason, such as a full disk.
      for (let written = 0; written < bytes.length;) written += this.#file.writeSync(bytes.subarray(written));
      // fdatasync covers the file's new length as well, and leaves out only times that nobody needs.
      this.#file.syncDataSync();
    } catch (thrown) {
      this.#takeBack();
      throw thrown;
    }
    // Only now: a file that was deleted or replaced by this moment must not count.
    this.#requireInPlace(this.#size + bytes.length);
  }

  /** Cuts half-written bytes off before anything can be appended behind them. Where that fails, a new writer must. */
  #takeBack(): void {
    try {
      // Someone else made the file shorter: truncating would fill it up with zeros and hide that.
      if (this.#file.statSync().size < this.#size) return;
      this.#file.truncateSync(this.#size);
      this.#file.syncDataSync();
      this.#requireInPlace(this.#size);
      this.#usable = true;
    } catch {
      // Still unusable.
    }
  }

  #beginSegment(): void {
    try {
      this.sign();
    } catch {
      // It is owed, and tried again behind this batch.
    }
    // Or a power cut could put it back into a segment that retention has thinned by then.
    this.#checkpoint.sync();
    this.#number++;
    const next = Deno.openSync(this.#path(), { read: true, append: true, createNew: true, mode: 0o600 });
    this.#file.close();
    this.#file = next;
    this.#size = 0;
    this.#day = undefined;
    this.#info = next.statSync();
    syncDirectory(this.#options.directory);
  }

  #requireInPlace(size: number): void {
    if (!leadsTo(this.#path(), this.#info, size)) {
      throw new Fault(
        "unavailable",
        `Cannot trust audit segment ${segmentName(this.#number)}: it was replaced or changed by someone else`,
      );
    }
    this.#checkpoint.requireInPlace();
  }
}

/** The UTC day of an ISO 8601 time. */
function dayOf(time: string): string {
  return time.slice(0, "2026-01-02".length);
}

function newOrigin({ name }: TrailKeys): string {
  return `${name}/${crypto.getRandomValues(new Uint8Array(8)).toHex()}`;
}

function asFault(act: string, thrown: unknown): Fault {
  if (thrown instanceof Fault) return thrown;
  return new Fault("unavailable", `Cannot ${act}: ${reasonOf(thrown)}`, { cause: thrown });
}
