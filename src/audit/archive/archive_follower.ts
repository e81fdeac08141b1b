// Archive follower: keeps an index up with the trail, whatever becomes of either. Runs in the archive's worker; synchronous.
import { Fault } from "../../faults/fault.ts";
import { listSegments, parseHeader, readLines, reasonOf, segmentName } from "../trail/segment_files.ts";
import { type ReadEntry, type TrailPosition, TrailReader } from "../trail/trail_reader.ts";
import { ArchiveIndex, type IndexedSegment, isDamage } from "./archive_index.ts";

/** Where everything is. */
export interface ArchiveFolders {
  /** The trail's segments. */
  readonly directory: string;
  readonly checkpointDirectory: string;
  /** For the index; it exists, and nothing else belongs in it. */
  readonly indexDirectory: string;
}

/** Entries and bytes that are taken at once: some dozens of milliseconds, for which a question waits. */
const PIECE = { entriesMax: 2000, bytesMax: 1024 * 1024 };
/** After so many steps it looks whether another file stands in the place of a segment. */
const LOOK_EVERY_STEPS = 100;

/** A thinned segment, and how far it is indexed anew. */
interface Thinned {
  readonly segment: IndexedSegment;
  /** Of the file that is read. */
  readonly inode: number;
  position: TrailPosition;
}

/** Follows a trail. */
export class ArchiveFollower {
  readonly #folders: ArchiveFolders;
  readonly #key: Uint8Array;
  readonly reader: TrailReader;
  #keys: ReadonlyMap<string, Uint8Array>;
  /** Sealing keys that nobody has any more: what they sealed stays unreadable. */
  readonly #goneKeys = new Set<string>();
  #index: ArchiveIndex | undefined;
  #thinned: Thinned | undefined;
  #stepsToLook = 0;
  #isThinnedNext = false;

  /** @param key 32 bytes, for the words in the index */
  constructor(folders: ArchiveFolders, key: Uint8Array, keys: ReadonlyMap<string, Uint8Array>) {
    this.#folders = folders;
    this.#key = key;
    this.#keys = keys;
    this.reader = new TrailReader({ ...folders, keys: () => this.#keys });
  }

  /** @throws Fault `unavailable` before the first step */
  get index(): ArchiveIndex {
    if (this.#index !== undefined) return this.#index;
    throw new Fault("unavailable", "Cannot search the audit trail: its index is not open yet");
  }

  /** The number of the last entry that the index has. */
  indexedTo(): number {
    return this.#index?.position.seq ?? 0;
  }

  /** From now on these keys open sealed events. */
  useKeys(keys: ReadonlyMap<string, Uint8Array>): void {
    this.#keys = keys;
  }

  /** Believes from now on that keys which it lacks exist nowhere. */
  giveKeyUp(id: string): void {
    this.#goneKeys.add(id);
  }

  /**
   * Takes the next piece of work. Opens the index where it is not open; where it is damaged, of another trail, or ahead of this
   * one, it is made anew.
   *
   * @returns "again": there is more · "idle": for now there is none · otherwise the id of a sealing key that it lacks: to be
   * called again with it, or when it is given up
   * @throws Fault `unavailable` when trail or index cannot be read or written
   */
  step(): "again" | "idle" | { readonly keyLacking: string } {
    try {
      const durable = this.reader.durable();
      if (durable === 0 && this.#index === undefined) return "idle"; // it has not begun yet
      const index = this.#index ??= this.#open();
      if (index.position.seq > durable) {
        this.startAnew();
        return "again";
      }
      if (this.#thinned === undefined) this.#lookForThinned(index);
      const isBehind = index.position.seq < durable;
      // In turns: neither waits for the end of the other.
      this.#isThinnedNext = this.#thinned !== undefined && (!isBehind || !this.#isThinnedNext);
      if (this.#isThinnedNext) return this.#takeThinned(index);
      return isBehind ? this.#takeNew(index, durable) : "idle";
    } catch (thrown) {
      if (isDamage(thrown)) {
        this.startAnew();
        return "again";
      }
      if (thrown instanceof Fault) throw thrown;
      throw new Fault("unavailable", `Cannot keep the audit index: ${reasonOf(thrown)}`, { cause: thrown });
    }
  }

  /** Throws the index away: the next step makes a new one. For who finds it damaged. */
  startAnew(): void {
    this.close();
    this.#thinned = undefined;
    this.#removeFile();
  }

  /** Whether a segment is another file than the one that is indexed; it is then indexed anew with the next steps. */
  noteMoved(number: number): boolean {
    const segment = this.index.segments().find((each) => each.number === number);
    if (segment === undefined || this.#inodeOf(number) === segment.inode) return false;
    this.#beginThinned(segment);
    return true;
  }

  /** Whether a segment is being indexed anew. */
  isIndexedAnew(number: number): boolean {
    return this.#thinned?.segment.number === number;
  }

  /** Frees the files. */
  close(): void {
    this.#index?.close();
    this.#index = undefined;
  }

  #takeNew(index: ArchiveIndex, durable: number): "again" | "idle" | { readonly keyLacking: string } {
    const inodes = new Map<number, number>();
    const inodeOf = (segment: number): number => inodes.get(segment) ?? this.#inodeOf(segment);
    // Before they are read: what comes in their place afterwards is another file.
    const { segment } = index.position;
    for (const number of [segment, segment + 1]) inodes.set(number, this.#inodeOf(number));
    const { entries, next } = this.reader.read(index.position, PIECE);
    const lacking = this.#firstLacking(entries);
    if (lacking !== undefined) return { keyLacking: lacking };
    index.add(entries, next, inodeOf);
    // What came meanwhile can wait until there is more of it: a piece has its price, however small it is.
    return next.seq < durable ? "again" : "idle";
  }

  /** The key of an entry that cannot be read, unless it is known to be gone. */
  #firstLacking(entries: readonly ReadEntry[]): string | undefined {
    for (const { event, line } of entries) {
      if (event !== undefined || line === undefined) continue;
      const key = JSON.parse(line).event?.key;
      if (typeof key === "string" && !this.#keys.has(key) && !this.#goneKeys.has(key)) return key;
    }
    return undefined;
  }

  /** Now and then: it costs a look at each segment's name. */
  #lookForThinned(index: ArchiveIndex): void {
    if (this.#stepsToLook-- > 0) return;
    this.#stepsToLook = LOOK_EVERY_STEPS;
    const moved = index.segments().find(({ number, inode }) => this.#inodeOf(number) !== inode);
    if (moved === undefined) return;
    this.#stepsToLook = 0; // there may be others
    this.#beginThinned(moved);
  }

  #beginThinned(segment: IndexedSegment): void {
    if (this.#thinned?.segment.number === segment.number) return;
    const { number, first } = segment;
    this.#thinned = {
      segment,
      inode: this.#inodeOf(number),
      position: { segment: number, offset: 0, seq: first - 1 },
    };
  }

  #takeThinned(index: ArchiveIndex): "again" {
    const thinned = this.#thinned;
    if (thinned === undefined) return "again";
    const { segment: { number, last }, position, inode } = thinned;
    const { entries, next } = this.reader.read(position, PIECE);
    const here = entries.filter((entry) => entry.segment === number && entry.seq <= last);
    const isWhole = next.seq >= last || here.length < entries.length;
    index.replace(here, position.seq, isWhole ? last : next.seq);
    if (isWhole) {
      index.settleSegment(number, inode);
      this.#thinned = undefined;
    } else thinned.position = next;
    return "again";
  }

  #inodeOf(segment: number): number {
    try {
      return Deno.statSync(`${this.#folders.directory}/${segmentName(segment)}`).ino ?? 0;
    } catch (thrown) {
      if (thrown instanceof Deno.errors.NotFound) return 0;
      throw new Fault("unavailable", `Cannot read ${segmentName(segment)}: ${reasonOf(thrown)}`);
    }
  }

  #open(): ArchiveIndex {
    const maker = { origin: this.#origin(), key: this.#key };
    this.#makeFile();
    try {
      const index = new ArchiveIndex(this.#file(), maker);
      if (this.#fits(index)) return index;
      index.close();
    } catch (thrown) {
      if (thrown instanceof Fault) throw thrown; // the trail cannot be read, which says nothing of the index
    }
    // It is derived: whatever is wrong with it, a new one is right.
    this.#removeFile();
    this.#makeFile();
    return new ArchiveIndex(this.#file(), maker);
  }

  /** Only its owner may read it; SQLite gives its side files the same mode. */
  #makeFile(): void {
    Deno.openSync(this.#file(), { write: true, create: true, mode: 0o600 }).close();
  }

  /** Whether the newest entry in the index stands in the trail: one that was restored may have gone another way since. */
  #fits(index: ArchiveIndex): boolean {
    if (index.position.seq > this.reader.durable()) return false;
    const { newest } = index;
    const place = newest === undefined ? undefined : index.placeOf(newest.seq);
    if (place === undefined) return true; // none yet, or it was taken out since
    try {
      return this.reader.at(place).hash === newest?.hash;
    } catch (thrown) {
      if (thrown instanceof Fault && thrown.kind === "not_found") return false;
      throw thrown;
    }
  }

  #file(): string {
    return `${this.#folders.indexDirectory}/index.db`;
  }

  #removeFile(): void {
    for (const side of ["", "-wal", "-shm"]) {
      try {
        Deno.removeSync(`${this.#file()}${side}`);
      } catch (thrown) {
        if (!(thrown instanceof Deno.errors.NotFound)) throw thrown;
      }
    }
  }

  /** Which trail it is, in the words of the newest segment that says so: one that was just begun is empty. */
  #origin(): string {
    const { directory } = this.#folders;
    for (const number of listSegments(directory).toReversed()) {
      using file = Deno.openSync(`${directory}/${segmentName(number)}`, { read: true });
      for (const line of readLines(file)) {
        const header = line.end === "line_feed" ? parseHeader(line.bytes) : undefined;
        if (header?.ok === true) return header.value.origin;
        break;
      }
    }
    throw new Fault("unavailable", "Cannot index the audit trail: it does not say which trail it is");
  }
}
