// Trail folder: what the audit tests share — a trail in a temporary place, written and tampered with by hand.
import type { AuditEvent } from "../../src/audit/audit_event.ts";
import type { AuditTrailOptions } from "../../src/audit/audit_trail.ts";
import { classOf } from "../../src/audit/event_class.ts";
import { eventText } from "../../src/audit/trail/event_text.ts";
import type { ChainEntry } from "../../src/audit/trail/hash_chain.ts";
import { signVoucher } from "../../src/audit/trail/key_voucher.ts";
import { listSegments, segmentName } from "../../src/audit/trail/segment_files.ts";
import { listCheckpointFiles } from "../../src/audit/trail/signed_checkpoints.ts";
import { intentStepOf } from "../../src/audit/trail/open_intents.ts";
import {
  SegmentWriter,
  type SegmentWriterOptions,
  type UnwrittenEvent,
} from "../../src/audit/trail/segment_writer.ts";
import { noteSigner } from "../../src/audit/trail/signed_note.ts";
import { systemClock } from "../../src/time/clock.ts";
import type { TrailKeys, TrailSigningKey } from "../../src/audit/trail_keys.ts";

/** A trail's two folders below a temporary one. */
export class TrailFolder implements AsyncDisposable {
  readonly root: string = Deno.makeTempDirSync({ prefix: "audit-" });
  readonly directory: string = `${this.root}/trail`;
  readonly checkpointDirectory: string = `${this.root}/checkpoint`;
  readonly checkpointPath: string = `${this.checkpointDirectory}/checkpoint.json`;
  /** Of the month that `TIME_MS` is in. */
  readonly signedPath: string = `${this.checkpointDirectory}/checkpoints-2026-01.jsonl`;

  constructor() {
    Deno.mkdirSync(this.directory);
    Deno.mkdirSync(this.checkpointDirectory);
  }

  openWriter(segmentBytesMax = 1_000_000, options: Partial<SegmentWriterOptions> = {}): SegmentWriter {
    const { directory, checkpointDirectory } = this;
    return new SegmentWriter({
      directory,
      checkpointDirectory,
      segmentBytesMax,
      keys: TRAIL_KEYS,
      sealed: false,
      sealingKeys: new Map(),
      ...options,
    });
  }

  /** Writes events, a batch each, and signs a checkpoint at the end. */
  write(
    events: readonly AuditEvent[],
    segmentBytesMax?: number,
    options?: Partial<SegmentWriterOptions>,
  ): void {
    const writer = this.openWriter(segmentBytesMax, options);
    try {
      for (const event of events) writer.append([unwritten(event)]);
      writer.sign();
    } finally {
      writer.close();
    }
  }

  /** Writes events, a batch each, and goes without signing a checkpoint over the last ones. */
  writeAndDie(events: readonly AuditEvent[], segmentBytesMax?: number): void {
    const writer = this.openWriter(segmentBytesMax);
    try {
      for (const event of events) writer.append([unwritten(event)]);
    } finally {
      writer.close();
    }
  }

  segmentPath(number: number): string {
    return `${this.directory}/${segmentName(number)}`;
  }

  /** A segment's lines, without line feeds; the first is its header. */
  lines(number = 1): string[] {
    return Deno.readTextFileSync(this.segmentPath(number)).split("\n").slice(0, -1);
  }

  setLines(lines: readonly string[], number = 1): void {
    Deno.writeTextFileSync(this.segmentPath(number), lines.map((line) => `${line}\n`).join(""));
  }

  /** All whole entries, in order. */
  entries(): ChainEntry[] {
    return listSegments(this.directory).flatMap((number) => this.lines(number).slice(1)).map((line) =>
      JSON.parse(line)
    );
  }

  /** The notes of the signed checkpoints, in order. */
  notes(): string[] {
    return listCheckpointFiles(this.checkpointDirectory).flatMap((name) =>
      Deno.readTextFileSync(`${this.checkpointDirectory}/${name}`).split("\n").slice(0, -1)
    ).map((line) => JSON.parse(line));
  }

  /** The events that `numbered` made, by their number. */
  numbers(): number[] {
    return this.entries().map(({ event }) => Number(event.reason));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Deno.remove(this.root, { recursive: true });
  }
}

/** 2026-01-02T03:04:05.006Z. */
export const TIME_MS = 1_767_323_045_006;

/** An event as the writer takes it. */
export function unwritten(event: AuditEvent, timeMs: number = TIME_MS): UnwrittenEvent {
  return { timeMs, text: eventText(event), class: classOf(event.type), step: intentStepOf(event) };
}

/** The signing key with a seed of 32 times this byte: the same in every process. */
export function signingKeyOf(seed: number): TrailSigningKey {
  // RFC 8410 §7: the DER of an Ed25519 private key is this and the seed.
  const der = `302e020100300506032b657004220420${seed.toString(16).padStart(2, "0").repeat(32)}`;
  const pkcs8 = Uint8Array.fromHex(der);
  return { id: `akey_${seed}`, madeAtMs: TIME_MS, pkcs8, publicKey: noteSigner("test", pkcs8).publicKey };
}

/** What all trails of these tests are signed with; nothing is sealed. */
export const TRAIL_KEYS: TrailKeys = {
  name: "portcullis.0123456789abcdef",
  signing: signingKeyOf(1),
  older: [],
  sealing: undefined,
};

/** The keys after a change of the signing key to that with this seed. */
export function rotatedKeys(keys: TrailKeys, seed: number): TrailKeys {
  const { name, signing: { id, madeAtMs, publicKey, pkcs8 }, older } = keys;
  const signing = signingKeyOf(seed);
  const voucher = signVoucher(noteSigner(name, pkcs8), { name, publicKey: signing.publicKey });
  return { ...keys, signing, older: [{ id, madeAtMs, publicKey, voucher }, ...older] };
}

/** How a trail is opened in tests: in the clear, with checkpoints at the ends of segments and at the close alone. */
export function trailOptions(
  { directory, checkpointDirectory }: Pick<AuditTrailOptions, "directory" | "checkpointDirectory">,
  options: Partial<AuditTrailOptions> = {},
): AuditTrailOptions {
  return {
    directory,
    checkpointDirectory,
    clock: systemClock,
    segmentBytesMax: 1_000_000,
    timeoutMs: 20_000,
    waitingMax: 1_000,
    keys: TRAIL_KEYS,
    sealed: false,
    sealingKeys: () => new Map(),
    checkpointEntriesMax: 1_000_000,
    checkpointMs: 1_000_000,
    onCheckpointFailed() {},
    onSealingKeyWorn() {},
    ...options,
  };
}

/** A small event that carries a number. */
export function numbered(number: number): AuditEvent {
  return { type: "server.stopped", reason: String(number) };
}

/** The numbered events from `first` to `last`. */
export function numberedUpTo(last: number, first = 1): AuditEvent[] {
  return Array.from({ length: last - first + 1 }, (_, index) => numbered(first + index));
}

/** Waits until something becomes true by itself; gives up after a long while. */
export async function until(condition: () => boolean): Promise<void> {
  for (let attempt = 0; attempt < 2_000; attempt++) {
    if (condition()) return;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  throw new Error("It never became true");
}
