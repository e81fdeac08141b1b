// Retention: how long entries stay in the trail, by class. What is taken out leaves its hash, and a signed stub.
import { Fault } from "../../faults/fault.ts";
import type { Log } from "../../telemetry/log.ts";
import type { Clock } from "../../time/clock.ts";
import type { AuditTrail } from "../audit_trail.ts";
import { readCheckpoint } from "../trail/checkpoint.ts";
import type { RetentionReply, RetentionRequest } from "./retention_worker.ts";
import { listSegments, readLines, reasonOf, segmentName, segmentNumber } from "../trail/segment_files.ts";
import { stubText } from "../trail/segment_stub.ts";
import { noteSigner, openNote, signNote } from "../trail/signed_note.ts";
import type { Thinning } from "./thin_segment.ts";
import type { TrailKeys } from "../trail_keys.ts";

/** How retention is set up. */
export interface RetentionOptions {
  readonly directory: string;
  readonly checkpointDirectory: string;
  /** Sign the stubs. */
  readonly keys: () => Pick<TrailKeys, "name" | "signing" | "older">;
  readonly securityDays: number;
  readonly activityDays: number;
  readonly clock: Clock;
  readonly trail: AuditTrail;
  readonly log: Log;
  /** Between two passes. */
  readonly everyMs: number;
  /** When the trail was written to last before this process began to (`lastWritten`); undefined: never. */
  readonly lastWrittenMs: number | undefined;
}

/** Takes old entries out of the trail, from time to time. */
export interface Retention {
  /** Takes out what may go by now. Never rejects: what fails is told to the log, and tried again the next time. */
  pass(): Promise<void>;
  /** Stops, in the midst of a pass as well: the next one goes on. */
  close(): Promise<void>;
}

const DAY_MS = 86_400_000;
/** A clock that stands so far ahead of the trail at a start may be wrong: nobody believes it for a day. */
const AHEAD_MS_MAX = 30 * DAY_MS;
/** Not in the midst of a start. */
const FIRST_MS_MAX = 60_000;

/** Opens retention; the first pass comes within a minute. */
export function openRetention(options: RetentionOptions): Retention {
  const { clock, log, everyMs, lastWrittenMs } = options;
  const started = { now: clock.now(), monotonic: clock.monotonic() };
  const isAhead = lastWrittenMs !== undefined && started.now - lastWrittenMs > AHEAD_MS_MAX;
  if (isAhead) {
    const days = Math.floor((started.now - (lastWrittenMs ?? 0)) / DAY_MS);
    log.write("warn", "audit.clock_ahead", {
      days,
      reason: "no entry is taken out for a day: is the clock right?",
    });
  }
  let closed = false;
  let worker: RetentionWorker | undefined;
  let passing: Promise<void> | undefined;

  async function run(): Promise<void> {
    const upMs = clock.monotonic() - started.monotonic;
    if (isAhead && upMs < DAY_MS) return;
    // A clock that is put forward meanwhile does not age the trail.
    const nowMs = Math.min(clock.now(), started.now + upMs);
    worker = new RetentionWorker(options.directory);
    try {
      await takeOutDue(options, worker, nowMs);
    } catch (thrown) {
      if (!closed) log.write("error", "audit.retention_failed", { segment: null, reason: reasonOf(thrown) });
    } finally {
      worker.terminate();
    }
  }

  const pass = (): Promise<void> => {
    if (closed) return Promise.resolve();
    return passing ??= run().finally(() => passing = undefined);
  };
  const again = async (): Promise<void> => {
    await pass();
    if (!closed) timer = setTimeout(again, everyMs);
  };
  let timer = setTimeout(again, Math.min(everyMs, FIRST_MS_MAX));
  return {
    pass,
    async close() {
      closed = true;
      clearTimeout(timer);
      worker?.terminate();
      await passing;
    },
  };
}

async function takeOutDue(options: RetentionOptions, worker: RetentionWorker, nowMs: number): Promise<void> {
  const { directory, checkpointDirectory, securityDays, activityDays, log } = options;
  const checkpoint = readCheckpoint(checkpointDirectory);
  if (!checkpoint.ok) {
    throw new Fault("unavailable", `Cannot take entries out: the checkpoint is ${checkpoint.reason}`);
  }
  const horizon = { security: nowMs - securityDays * DAY_MS, activity: nowMs - activityDays * DAY_MS };
  // The segment that is written to is the checkpoint's or a later one.
  const before = segmentNumber(checkpoint.value.segment) ?? 1;
  let reply = await worker.ask({ kind: "begin", directory, horizon, before });
  let [segments, entries] = [0, 0];
  for (; reply.kind === "due"; reply = await worker.ask({ kind: "next" })) {
    const { segment: due } = reply;
    if (due.ok) {
      if (!await takeOut(options, worker, due.thinning)) continue;
      segments++;
      entries += due.thinning.removed;
    } else {
      log.write("error", "audit.retention_failed", { segment: due.segment, reason: due.reason });
    }
  }
  if (reply.kind === "failed") throw new Fault("unavailable", reply.reason);
  if (segments > 0) log.write("info", "audit.thinned", { segments, entries });
}

const FORMER_WORDS = {
  malformed: "their stub is none",
  unknown_key: "no key of ours has signed their stub",
  forged: "their stub's signature is wrong",
} as const;

/** Whether it was taken out. */
async function takeOut(
  { keys, trail, clock, log }: RetentionOptions,
  worker: RetentionWorker,
  { facts, removed, formerNote }: Thinning,
): Promise<boolean> {
  const { name, signing, older } = keys();
  if (formerNote !== undefined) {
    const trusted = [signing, ...older].map(({ publicKey }) => ({ name, publicKey }));
    const former = openNote(formerNote, trusted);
    if (!former.ok) {
      // Whoever took those entries out must not be covered by a stub of ours. Only the store knows our keys: what is published
      // beside the trail can be anybody's.
      const reason = `entries were taken out before, and ${FORMER_WORDS[former.reason]}: verify the trail`;
      log.write("error", "audit.retention_failed", { segment: facts.segment, reason });
      return false;
    }
  }
  const { segment, first, last, classes } = facts;
  await trail.record({ type: "trail.thinned", segment, first, last, removed, classes });
  const text = stubText({ ...facts, made: new Date(clock.now()).toISOString() });
  const note = signNote(text, [noteSigner(name, signing.pkcs8)]);
  const done = await worker.ask({ kind: "commit", facts, note });
  if (done.kind === "failed") throw new Fault("unavailable", done.reason);
  return true;
}

/** The worker and its answers, one question at a time. */
class RetentionWorker {
  readonly #worker: Worker;
  #waiting: PromiseWithResolvers<RetentionReply> | undefined;
  #over = false;

  constructor(directory: string) {
    this.#worker = new Worker(new URL("./retention_worker.ts", import.meta.url), {
      type: "module",
      name: "audit-retention",
      deno: { permissions: { read: [directory], write: [directory] } },
    });
    this.#worker.onmessage = ({ data }: MessageEvent<RetentionReply>) => this.#waiting?.resolve(data);
    this.#worker.onerror = (event) => {
      event.preventDefault();
      this.#fail(event.message);
    };
  }

  /** @throws Fault `unavailable` when the worker has ended */
  ask(request: RetentionRequest): Promise<RetentionReply> {
    this.#waiting = Promise.withResolvers();
    if (this.#over) this.#fail("it was stopped");
    else this.#worker.postMessage(request);
    return this.#waiting.promise;
  }

  terminate(): void {
    this.#worker.terminate();
    this.#fail("it was stopped");
  }

  #fail(reason: string): void {
    this.#over = true;
    this.#waiting?.reject(new Fault("unavailable", `Cannot take entries out: the worker ended: ${reason}`));
  }
}

/**
 * When a trail was written to last, by its own words: the time of its last entry; undefined for none. To be asked before this
 * process writes to it.
 *
 * @throws Fault `unavailable` when the folder cannot be read
 */
export function lastWritten(directory: string): number | undefined {
  for (const number of exists(directory) ? listSegments(directory).reverse() : []) {
    using file = Deno.openSync(`${directory}/${segmentName(number)}`, { read: true });
    let time: string | undefined;
    for (const { bytes, end } of readLines(file)) {
      if (end !== "line_feed") break;
      time = TIME_AT_END.exec(latin1.decode(bytes.subarray(-TIME_BYTES)))?.[1] ?? time;
    }
    if (time !== undefined) return Date.parse(time);
  }
  return undefined;
}

function exists(path: string): boolean {
  try {
    Deno.statSync(path);
    return true;
  } catch (thrown) {
    if (thrown instanceof Deno.errors.NotFound) return false;
    throw new Fault("unavailable", `Cannot read the audit trail: ${reasonOf(thrown)}`, { cause: thrown });
  }
}

const latin1 = new TextDecoder("latin1");
/** Entries and headers end alike. */
const TIME_AT_END = /"time":"([^"]{24})"\}$/;
const TIME_BYTES = 40;
