// Audit worker: owns the trail's files, so that a slow disk never blocks the server's thread.
/// <reference no-default-lib="true" />
/// <reference lib="deno.worker" />
import { Fault } from "../../faults/fault.ts";
import type { EventClass } from "../audit_event.ts";
import type { IntentStep, OpenIntent } from "./open_intents.ts";
import { SegmentWriter, type SegmentWriterOptions } from "./segment_writer.ts";
import { reasonOf } from "./segment_files.ts";
import type { RememberedTrail } from "./trail_end.ts";
import type { TrailKeys } from "../trail_keys.ts";
import type { TreeHead } from "./tree_head.ts";

/** How the worker is set up. */
export interface AuditWorkerOptions extends SegmentWriterOptions {
  /** A checkpoint is signed at the latest behind so many new entries. */
  readonly checkpointEntriesMax: number;
  /** A checkpoint is signed at the latest so long after a new entry. */
  readonly checkpointMs: number;
  /** How long a sealing key that is worn is not told of again; absent: a minute. */
  readonly wornAgainMs?: number;
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
    /** What the trail has reached; undefined without an entry. */
    readonly reached: TreeHead | undefined;
  }
  /** The answer: not done. */
  | { readonly kind: "failed"; readonly reason: string }
  /** Between answers: a checkpoint could not be signed, and will be tried again; told once until one succeeds. */
  | { readonly kind: "checkpoint_failed"; readonly reason: string }
  /** At any time: the newest signed checkpoint, which is durable. */
  | { readonly kind: "signed"; readonly head: TreeHead }
  /** Between answers: the sealing key has sealed enough. Told again from time to time until there is another. */
  | { readonly kind: "sealing_key_worn" };

const WORN_AGAIN_MS = 60_000;

let options: AuditWorkerOptions | undefined;
let writer: SegmentWriter | undefined;
let timer: ReturnType<typeof setTimeout> | undefined;
let failureTold = false;
let wornTimer: ReturnType<typeof setTimeout> | undefined;
/** Of the trail, by the writers that came before. */
let remembered: RememberedTrail = {};
let toldSize = 0;

self.onmessage = ({ data }: MessageEvent<AuditWorkerRequest>) => {
  switch (data.kind) {
    case "open":
      options = data.options;
      remembered = options.remembered ?? {};
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
      reached: writer?.remembered.reached,
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
  writer ??= new SegmentWriter({ ...options, remembered });
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
  if (keys.sealing?.id !== options.keys.sealing?.id) forgetWorn();
  options = { ...options, keys, sealingKeys };
  writer?.useKeys(keys);
  signWhereDue();
}

function signWhereDue(): void {
  if (options === undefined || writer === undefined) return;
  tellSigned();
  tellWorn();
  if (writer.isSignatureOwed || writer.unsigned >= options.checkpointEntriesMax) return sign();
  if (writer.unsigned > 0) timer ??= setTimeout(sign, options.checkpointMs);
}

function sign(): void {
  clearTimeout(timer);
  timer = undefined;
  try {
    writer?.sign();
    failureTold = false;
    tellSigned();
  } catch (thrown) {
    if (!failureTold) tell({ kind: "checkpoint_failed", reason: reasonOf(thrown) });
    failureTold = true;
    // Also without traffic.
    if (options !== undefined) timer = setTimeout(sign, options.checkpointMs);
  }
}

/** Also of what was signed by an append, at the end of a segment, and of what stood there when the trail was opened. */
function tellSigned(): void {
  const head = writer?.remembered.signed;
  if (head === undefined || head.size === toldSize) return;
  toldSize = head.size;
  tell({ kind: "signed", head });
}

function tellWorn(): void {
  if (writer?.isSealingKeyWorn !== true || wornTimer !== undefined) return;
  const { wornAgainMs = WORN_AGAIN_MS } = options ?? {};
  tell({ kind: "sealing_key_worn" });
  wornTimer = setTimeout(() => {
    wornTimer = undefined;
    tellWorn();
  }, wornAgainMs);
}

function forgetWorn(): void {
  clearTimeout(wornTimer);
  wornTimer = undefined;
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
  // A trail that was wiped, put back or replaced since is none to go on with.
  remembered = { ...remembered, ...open?.remembered };
  open?.close();
}
