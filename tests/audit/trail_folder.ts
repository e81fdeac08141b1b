// Trail folder: what the audit tests share — a trail in a temporary place, written and tampered with by hand.
import type { AuditEvent } from "../../src/audit/audit_event.ts";
import { eventText } from "../../src/audit/event_text.ts";
import type { ChainEntry } from "../../src/audit/hash_chain.ts";
import { listSegments, segmentName } from "../../src/audit/segment_files.ts";
import { SegmentWriter } from "../../src/audit/segment_writer.ts";

/** A trail's two folders below a temporary one. */
export class TrailFolder implements AsyncDisposable {
  readonly root: string = Deno.makeTempDirSync({ prefix: "audit-" });
  readonly directory: string = `${this.root}/trail`;
  readonly checkpointDirectory: string = `${this.root}/checkpoint`;
  readonly checkpointPath: string = `${this.checkpointDirectory}/checkpoint.json`;

  constructor() {
    Deno.mkdirSync(this.directory);
    Deno.mkdirSync(this.checkpointDirectory);
  }

  openWriter(segmentBytesMax = 1_000_000): SegmentWriter {
    const { directory, checkpointDirectory } = this;
    return new SegmentWriter({ directory, checkpointDirectory, segmentBytesMax });
  }

  /** Writes events, a batch each. */
  write(events: readonly AuditEvent[], segmentBytesMax?: number): void {
    const writer = this.openWriter(segmentBytesMax);
    try {
      for (const event of events) writer.append([{ timeMs: TIME_MS, text: eventText(event) }]);
    } finally {
      writer.close();
    }
  }

  segmentPath(number: number): string {
    return `${this.directory}/${segmentName(number)}`;
  }

  /** A segment's lines, without line feeds. */
  lines(number = 1): string[] {
    return Deno.readTextFileSync(this.segmentPath(number)).split("\n").slice(0, -1);
  }

  setLines(lines: readonly string[], number = 1): void {
    Deno.writeTextFileSync(this.segmentPath(number), lines.map((line) => `${line}\n`).join(""));
  }

  /** All whole entries, in order. */
  entries(): ChainEntry[] {
    return listSegments(this.directory).flatMap((number) => this.lines(number)).map((line) =>
      JSON.parse(line)
    );
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
