// Audit worker: owns the trail's files, so that a slow disk never blocks the server's thread.
/// <reference no-default-lib="true" />
/// <reference lib="deno.worker" />
import { Fault } from "../faults/fault.ts";
import { SegmentWriter, type SegmentWriterOptions, type UnwrittenEvent } from "./segment_writer.ts";
import { reasonOf } from "./segment_files.ts";

/** What the worker is told. `open` comes first and has no answer; each other message has exactly one. */
export type AuditWorkerRequest =
  | { readonly kind: "open"; readonly options: SegmentWriterOptions }
  /** Events in canonical JSON, a line each, and their times. None at all is a probe: could an event be written? */
  | { readonly kind: "append"; readonly timesMs: readonly number[]; readonly texts: string }
  | { readonly kind: "close" };

/** Done (for `append`: all is durable), or why not. */
export type AuditWorkerReply = { readonly ok: true } | { readonly ok: false; readonly reason: string };

let options: SegmentWriterOptions | undefined;
let writer: SegmentWriter | undefined;

self.onmessage = ({ data }: MessageEvent<AuditWorkerRequest>) => {
  if (data.kind === "open") options = data.options;
  else self.postMessage(answer(data));
};

function answer(request: Exclude<AuditWorkerRequest, { kind: "open" }>): AuditWorkerReply {
  try {
    if (request.kind === "close") close();
    else append(request.timesMs, request.texts);
    return { ok: true };
  } catch (thrown) {
    // Opened anew, and thereby repaired, with the next message.
    if (writer?.usable === false) close();
    return { ok: false, reason: reasonOf(thrown) };
  }
}

function append(timesMs: readonly number[], texts: string): void {
  if (options === undefined) {
    throw new Fault("internal", "Cannot write to the audit trail: it was never opened");
  }
  writer ??= new SegmentWriter(options);
  if (timesMs.length === 0) return writer.probe();
  // Canonical JSON holds no line feed: it is escaped inside strings.
  const lines = texts.split("\n");
  writer.append(timesMs.map((timeMs, index): UnwrittenEvent => ({ timeMs, text: lines[index] ?? "" })));
}

function close(): void {
  const open = writer;
  writer = undefined;
  open?.close();
}
