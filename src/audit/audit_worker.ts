// Audit worker: owns the trail's files, so that a slow disk never blocks the server's thread.
/// <reference no-default-lib="true" />
/// <reference lib="deno.worker" />
import { Fault } from "../faults/fault.ts";
import type { EventClass } from "./audit_event.ts";
import type { IntentStep, OpenIntent } from "./open_intents.ts";
import { SegmentWriter, type SegmentWriterOptions } from "./segment_writer.ts";
import { reasonOf } from "./segment_files.ts";
import type { TrailKeys } from "./trail_keys.ts";

/** How the worker is set up. */
export interface AuditWorkerOptions extends SegmentWriterOptions {
  /** A checkpoint is signed at the latest behind so many new entries. */
  readonly checkpointEntriesMax: number;
  /** A checkpoint is signed at the latest so long after a new entry. */
  readonly checkpointMs: number;
}

/** What the worker is told. `open` comes first; it and `keys` have no answer, each other message has exactly one. */
export type AuditWorkerRequest =
  | { readonly kind: "open"; readonly options: AuditWorkerOptions }
  /** From now on these sign and seal. */
  | { readonly kind: "keys"; readonly keys: TrailKeys; readonly sealingKeys: ReadonlyMap<string, Uint8Array> }
  /** Events. None at all is a probe: could an event be written? */
  | ({ readonly kind: "append" } & EventBatch)
  | { readonly kind: "close" };

/** Events on their way, told so that the worker need not parse them. */
export interface EventBatch {
  readonly timesMs: readonly number[];
  /** In canonical JSON, a line each. */
  readonly texts: string;
  /** Their classes; empty where events are plain. */
  readonly classes: readonly EventClass[];
  /** Those that are intents or outcomes, by their places in the batch, ascending. */
  readonly steps: readonly (readonly [index: number, step: IntentStep])[];
  /** Requests of which the answer is to say whether their intent is open. */
  readonly asked: readonly string[];
}

/** What the worker tells. */
export type AuditWorkerReply =
  /** The answer: done (for `append`: all is durable), what was under way when the trail was opened by it, and the open ones of those asked for. */
  | {
    readonly kind: "done";
    readonly interrupted: readonly OpenIntent[];
    readonly open: readonly (readonly [request: string, seq: number])[];
  }
  /** The answer: not done. */
  | { readonly kind: "failed"; readonly reason: string }
  /** Between answers: a checkpoint could not be signed, and will be tried again; told once until one succeeds. */
  | { readonly kind: "checkpoint_failed"; readonly reason: string }
  /** Between answers: the sealing key has sealed enough. Told once a key. */
  | { readonly kind: "sealing_key_worn" };

let options: AuditWorkerOptions | undefined;
let writer: SegmentWriter | undefined;
let timer: ReturnType<typeof setTimeout> | undefined;
let failureTold = false;
let wornTold = false;

self.onmessage = ({ data }: MessageEvent<AuditWorkerRequest>) => {
  switch (data.kind) {
    case "open":
      options = data.options;
      return;
    case "keys":
      useKeys(data.keys, data.sealingKeys);
      return;
    default:
      tell(answer(data));
      // Behind the answer: nobody waits for a signature.
      signWhereDue();
  }
};

function tell(reply: AuditWorkerReply): void {
  self.postMessage(reply);
}

function answer(request: Extract<AuditWorkerRequest, { kind: "append" | "close" }>): AuditWorkerReply {
  try {
    if (request.kind === "close") close();
    else append(request);
    const asked = request.kind === "append" ? request.asked : [];
    return {
      kind: "done",
      interrupted: writer?.takeInterrupted() ?? [],
      open: asked.flatMap((each) => {
        const seq = writer?.openIntent(each);
        return seq === undefined ? [] : [[each, seq] as const];
      }),
    };
  } catch (thrown) {
    // Opened anew, and thereby repaired, with the next message.
    if (writer?.usable === false) release();
    return { kind: "failed", reason: reasonOf(thrown) };
  }
}

function append({ timesMs, texts, classes, steps }: EventBatch): void {
  if (options === undefined) {
    throw new Fault("internal", "Cannot write to the audit trail: it was never opened");
  }
  writer ??= new SegmentWriter(options);
  if (timesMs.length === 0) return writer.probe();
  // Canonical JSON holds no line feed: it is escaped inside strings.
  const lines = texts.split("\n");
  let nextStep = 0;
  writer.append(timesMs.map((timeMs, index) => {
    const step = steps[nextStep]?.[0] === index ? steps[nextStep++]?.[1] : undefined;
    return { timeMs, text: lines[index] ?? "", class: classes[index] ?? "security", step };
  }));
}

function useKeys(keys: TrailKeys, sealingKeys: ReadonlyMap<string, Uint8Array>): void {
  if (options === undefined) return;
  if (keys.sealing?.id !== options.keys.sealing?.id) wornTold = false;
  options = { ...options, keys, sealingKeys };
  writer?.useKeys(keys);
  signWhereDue();
}

function signWhereDue(): void {
  if (options === undefined || writer === undefined) return;
  if (writer.isSealingKeyWorn && !wornTold) {
    wornTold = true;
    tell({ kind: "sealing_key_worn" });
  }
  if (writer.isSignatureOwed || writer.unsigned >= options.checkpointEntriesMax) return sign();
  if (writer.unsigned > 0) timer ??= setTimeout(sign, options.checkpointMs);
}

function sign(): void {
  clearTimeout(timer);
  timer = undefined;
  try {
    writer?.sign();
    failureTold = false;
  } catch (thrown) {
    if (!failureTold) tell({ kind: "checkpoint_failed", reason: reasonOf(thrown) });
    failureTold = true;
    // Also without traffic.
    if (options !== undefined) timer = setTimeout(sign, options.checkpointMs);
  }
}

function close(): void {
  sign();
  release();
}

function release(): void {
  clearTimeout(timer);
  timer = undefined;
  const open = writer;
  writer = undefined;
  open?.close();
}
