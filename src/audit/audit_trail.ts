// Audit trail: events become durable before the act they speak of; when they cannot, the act must not happen.
import { setImmediate } from "node:timers";
import { Fault } from "../faults/fault.ts";
import type { Clock } from "../time/clock.ts";
import type { AuditEvent, EventClass } from "./audit_event.ts";
import type { AuditWorkerReply, AuditWorkerRequest } from "./trail/audit_worker.ts";
import { classOf } from "./event_class.ts";
import { eventText } from "./trail/event_text.ts";
import { type IntentStep, intentStepOf, interruptionOf, type OpenIntent } from "./trail/open_intents.ts";
import { reasonOf } from "./trail/segment_files.ts";
import type { RememberedTrail } from "./trail/trail_end.ts";
import type { TrailKeys } from "./trail_keys.ts";
import type { TreeHead } from "./trail/tree_head.ts";

/** Takes events and keeps them. */
export interface AuditTrail {
  /**
   * Records an event. Resolves when it is durable, never before.
   *
   * After a rejection the event may be in the trail all the same, or still get there (a disk that answers late): a
   * record without its act does no harm, an act without its record must never be.
   *
   * @throws Fault `unavailable` when it could not be made durable in time · `internal` when it is no JSON or too long
   */
  record(event: AuditEvent): Promise<void>;
  /**
   * Records events that belong together, one or more: in one batch, which is taken or refused as a whole. What was said of `record`
   * holds for all of them.
   *
   * @param ifRefused where an outcome is among them: the one that its intent gets instead where these were refused
   */
  recordAll(events: readonly AuditEvent[], ifRefused?: AuditEvent): Promise<void>;
  /** False from a failure until it is known, by a record or by the trail's own probe, that writing works again. */
  healthy(): boolean;
  /** Refuses new events, waits for those already taken, frees everything. Never rejects. */
  close(): Promise<void>;
}

/** The trail on disk. */
export interface DurableAuditTrail extends AuditTrail {
  /** How many batches were sent to the disk so far, probes left out: one fsync each. */
  batchCount(): number;
  /**
   * From now on these keys sign and seal. Where the signing key has changed, the one before hands over to it with a checkpoint
   * that both sign.
   */
  useKeys(keys: TrailKeys): void;
}

/** How the trail on disk is set up. */
export interface AuditTrailOptions {
  /** For the segments; created when it is missing. Nothing else belongs in it. */
  readonly directory: string;
  /** For the checkpoint: not inside `directory`, best on another volume; created when it is missing. */
  readonly checkpointDirectory: string;
  readonly clock: Clock;
  readonly segmentBytesMax: number;
  /** Every record is settled within this time. */
  readonly timeoutMs: number;
  /** How many events may wait while a batch is on its way; at least 1. */
  readonly waitingMax: number;
  /** What signs checkpoints and, where events are sealed, seals them. */
  readonly keys: TrailKeys;
  /** Whether events rest sealed. */
  readonly sealed: boolean;
  /** All raw sealing keys by their ids: what was under way in a sealed trail when its server died is read with them. */
  readonly sealingKeys: () => ReadonlyMap<string, Uint8Array>;
  /** A checkpoint is signed at the latest behind so many new entries. */
  readonly checkpointEntriesMax: number;
  /** A checkpoint is signed at the latest so long after a new entry. */
  readonly checkpointMs: number;
  /** Told when a checkpoint could not be signed; then not again until one could. Records are not concerned. */
  readonly onCheckpointFailed: (fault: Fault) => void;
  /** Told when the sealing key has sealed so much that it is time for another; again each minute until there is. */
  readonly onSealingKeyWorn: () => void;
  /** What the trail must have reached, by what is kept elsewhere. */
  readonly remembered?: RememberedTrail;
  /** Told of the newest signed checkpoint, once it is durable. */
  readonly onSigned?: (head: TreeHead) => void;
}

/** Where the trail of a data folder is. */
export function auditFolders(
  dataDir: string,
): Pick<AuditTrailOptions, "directory" | "checkpointDirectory"> {
  return { directory: `${dataDir}/audit`, checkpointDirectory: `${dataDir}/audit-checkpoint` };
}

/** UTF-16 code units of all events that wait; bounds memory where `waitingMax` counts events. Some may carry payloads of 45,000. */
const WAITING_CHARACTERS_MAX = 16 * 1024 * 1024;
/** Events of one batch at the start; far fewer than so many inferences run at once. */
const INTERRUPTED_AT_ONCE_MAX = 100;
/** Ends of inferences that a failing trail still owes; more are told of at the next start only. */
const OWED_MAX = 10_000;
const OWED_ASKED_MAX = 500;
const RETRY_FIRST_MS = 100;
const RETRY_MAX_MS = 5_000;

/**
 * Opens the trail: repairs a torn tail, checks the end of the chain against the checkpoints, finds out whether writing
 * works, and records of each inference that was under way when the server died that it was interrupted. It takes as long
 * as the disk needs; `timeoutMs` does not bound it.
 *
 * @param startWorker tests pass a worker with a disk that misbehaves
 * @throws Fault `unavailable` when the trail is damaged, cut, in use by another server or not writable
 */
export async function openAuditTrail(
  options: AuditTrailOptions,
  startWorker: (options: AuditTrailOptions) => Worker = startAuditWorker,
): Promise<DurableAuditTrail> {
  const { directory, checkpointDirectory } = options;
  try {
    for (const path of [directory, checkpointDirectory]) {
      Deno.mkdirSync(path, { recursive: true, mode: 0o700 });
    }
  } catch (thrown) {
    throw new Fault("unavailable", `Cannot create the audit trail's folders: ${reasonOf(thrown)}`, {
      cause: thrown,
    });
  }
  const trail = new WorkerAuditTrail(options, startWorker);
  try {
    await trail.probe(false);
    await trail.recordInterrupted();
  } catch (thrown) {
    await trail.close();
    throw thrown;
  }
  return trail;
}

function startAuditWorker({ directory, checkpointDirectory }: AuditTrailOptions): Worker {
  const directories = [directory, checkpointDirectory];
  return new Worker(new URL("./trail/audit_worker.ts", import.meta.url), {
    type: "module",
    name: "audit",
    deno: { permissions: { read: directories, write: directories } },
  });
}

/** Events that become durable together, or not at all. */
interface Batch {
  readonly timesMs: number[];
  readonly texts: string[];
  /** Empty where events are plain. */
  readonly classes: EventClass[];
  readonly steps: (readonly [index: number, step: IntentStep])[];
  /** The events of those steps, or what they are to be where these are refused; until they are known to be durable. */
  readonly stepEvents: AuditEvent[];
  /** Requests of which the answer is to say whether their intent is open. */
  asked: readonly string[];
  characters: number;
  /** One promise for all its events: they share their fate. */
  readonly settled: PromiseWithResolvers<void>;
  timer: ReturnType<typeof setTimeout> | undefined;
  isSettled: boolean;
  /** Rejected because its time is over, though an answer may still come. */
  expired: boolean;
}

class WorkerAuditTrail implements DurableAuditTrail {
  readonly #options: AuditTrailOptions;
  readonly #startWorker: (options: AuditTrailOptions) => Worker;
  /** Undefined between the death of a worker and the start of the next. */
  #worker: Worker | undefined;
  /** At most one batch is with the worker; what is recorded meanwhile goes in the next (group commit). */
  #inFlight: Batch | undefined;
  #waiting: Batch | undefined;
  #keys: TrailKeys;
  /** Outlives its workers: a trail that one of them has written is never begun anew. */
  #remembered: RememberedTrail;
  /** What was under way when the trail was opened; undefined until it is. */
  #interrupted: readonly OpenIntent[] | undefined;
  /**
   * By request: intents and outcomes that were refused to whoever recorded them, the later of both. They may stand in the trail
   * all the same: when it writes again, every intent that does gets its end.
   */
  readonly #owed = new Map<string, AuditEvent>();
  #batchCount = 0;
  #healthy = false;
  #retryTimer: ReturnType<typeof setTimeout> | undefined;
  #retryDelayMs = RETRY_FIRST_MS;
  #closing: Promise<void> | undefined;

  constructor(options: AuditTrailOptions, startWorker: (options: AuditTrailOptions) => Worker) {
    this.#options = options;
    this.#keys = options.keys;
    this.#remembered = options.remembered ?? {};
    this.#startWorker = startWorker;
    this.#worker = this.#start();
  }

  record(event: AuditEvent): Promise<void> {
    return this.recordAll([event]);
  }

  recordAll(events: readonly AuditEvent[], ifRefused?: AuditEvent): Promise<void> {
    const owed = ifRefused === undefined ? events : [ifRefused];
    // Whoever comes while the trail is known not to answer is refused at once: nothing piles up.
    if (this.#closing !== undefined) return refusal("it is closed");
    if (this.#worker === undefined) return this.#refuse(owed, "its worker is being replaced");
    if (this.#inFlight?.expired === true) return this.#refuse(owed, "the disk does not answer");
    let texts: readonly string[];
    try {
      texts = events.map(eventText);
    } catch (thrown) {
      return Promise.reject(thrown);
    }
    const { texts: { length: waiting }, characters } = this.#waiting ?? { texts: [], characters: 0 };
    if (
      waiting + texts.length > this.#options.waitingMax ||
      texts.reduce((sum, text) => sum + text.length, characters) > WAITING_CHARACTERS_MAX
    ) {
      return this.#refuse(owed, `${waiting} events wait already`);
    }
    const batch = this.#waiting ?? this.#openBatch();
    for (const [index, event] of events.entries()) this.#add(batch, event, texts[index] ?? "", ifRefused);
    return batch.settled.promise;
  }

  /** An intent that is not even tried is in no trail; an outcome is owed to its intent. */
  #refuse(events: readonly AuditEvent[], state: string): Promise<never> {
    this.#owe(events.filter((event) => intentStepOf(event)?.opens === false));
    return refusal(state);
  }

  #owe(events: readonly AuditEvent[]): void {
    for (const event of events) {
      const request = intentStepOf(event)?.request ?? "";
      this.#owed.delete(request);
      this.#owed.set(request, event);
    }
    // The oldest are then told of at the next start: `inference.interrupted`.
    for (const request of this.#owed.keys()) {
      if (this.#owed.size <= OWED_MAX) return;
      this.#owed.delete(request);
    }
  }

  #add(batch: Batch, event: AuditEvent, text: string, ifRefused = event): void {
    const step = intentStepOf(event);
    if (step !== undefined) {
      batch.steps.push([batch.texts.length, step]);
      batch.stepEvents.push(ifRefused);
    }
    if (this.#options.sealed) batch.classes.push(classOf(event.type));
    batch.timesMs.push(this.#options.clock.now());
    batch.texts.push(text);
    batch.characters += text.length;
  }

  healthy(): boolean {
    return this.#healthy && this.#closing === undefined;
  }

  batchCount(): number {
    return this.#batchCount;
  }

  /** Sends an empty batch: the worker opens the trail where it is not open and tries whether writing works. */
  probe(limited: boolean): Promise<void> {
    const batch = newBatch();
    if (limited) this.#limit(batch);
    this.#waiting = batch;
    this.#send();
    return batch.settled.promise;
  }

  /** Before anybody else records. A worker that dies and comes back interrupts nothing. */
  async recordInterrupted(): Promise<void> {
    const events = (this.#interrupted ?? []).map((intent) => interruptionOf(intent, "server_ended"))
      .filter((event) => event !== undefined);
    this.#interrupted = [];
    while (events.length > 0) {
      const batch = newBatch();
      for (const event of events.splice(0, INTERRUPTED_AT_ONCE_MAX)) {
        this.#add(batch, event, eventText(event));
      }
      this.#waiting = batch;
      this.#send();
      await batch.settled.promise;
    }
  }

  useKeys(keys: TrailKeys): void {
    this.#keys = keys;
    if (this.#worker === undefined) return;
    post(this.#worker, { kind: "keys", keys, sealingKeys: this.#options.sealingKeys() });
  }

  close(): Promise<void> {
    return this.#closing ??= this.#close();
  }

  async #close(): Promise<void> {
    clearTimeout(this.#retryTimer);
    await Promise.allSettled([this.#inFlight?.settled.promise, this.#waiting?.settled.promise]);
    const worker = this.#worker;
    this.#worker = undefined;
    if (worker === undefined) return;
    // A worker that hangs would not hear it.
    if (this.#inFlight === undefined) await this.#farewell(worker);
    worker.terminate();
  }

  /** Lets the worker close its files, so that the lock is free when `close` resolves. */
  #farewell(worker: Worker): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const timer = setTimeout(resolve, this.#options.timeoutMs);
    worker.onmessage = ({ data }: MessageEvent<AuditWorkerReply>) => {
      if (data.kind === "done" || data.kind === "failed") resolve();
      else this.#told(data);
    };
    worker.onerror = (event) => {
      event.preventDefault();
      resolve();
    };
    post(worker, { kind: "close" });
    return promise.finally(() => clearTimeout(timer));
  }

  #start(): Worker {
    const { directory, checkpointDirectory, segmentBytesMax, sealed, checkpointEntriesMax, checkpointMs } =
      this.#options;
    const worker = this.#startWorker(this.#options);
    worker.onmessage = ({ data }: MessageEvent<AuditWorkerReply>) => this.#told(data);
    worker.onerror = (event) => {
      event.preventDefault(); // else it ends the server
      this.#died(worker, event.message);
    };
    post(worker, {
      kind: "open",
      options: {
        directory,
        checkpointDirectory,
        segmentBytesMax,
        keys: this.#keys,
        sealed,
        sealingKeys: this.#options.sealingKeys(),
        checkpointEntriesMax,
        checkpointMs,
        remembered: this.#remembered,
      },
    });
    return worker;
  }

  /** Each batch asks which of the intents with an owed end stand in the trail, and its answer pays; without traffic one is sent for that. */
  #askForOwed(): void {
    if (this.#owed.size === 0 || this.#inFlight !== undefined || this.#waiting !== undefined) return;
    this.probe(true).catch(() => {}); // asked again when it writes again
  }

  #payOwed({ asked }: Batch, open: readonly (readonly [request: string, seq: number])[]): void {
    const seqs = new Map(open);
    for (const request of asked) {
      const event = this.#owed.get(request);
      const seq = seqs.get(request);
      this.#owed.delete(request);
      if (event === undefined || seq === undefined) continue;
      const end = event.type === "inference.started"
        ? interruptionOf({ seq, event: event as unknown as OpenIntent["event"] }, "not_acknowledged")
        : event;
      // Where this fails, it is owed again.
      if (end !== undefined) this.record(end).catch(() => {});
    }
  }

  #openBatch(): Batch {
    const batch = newBatch();
    this.#waiting = batch;
    // One timer for all: it runs from the first event on, so for the others it ends a little early.
    this.#limit(batch);
    // No wait is added: all that is recorded in this turn of the event loop goes together, or most batches hold one event.
    if (this.#inFlight === undefined) setImmediate(() => this.#send());
    return batch;
  }

  #limit(batch: Batch): void {
    // An event loop that was held up has timers and answers waiting at once: the answers first.
    batch.timer = setTimeout(
      () => setImmediate(() => batch.isSettled || this.#expire(batch)),
      this.#options.timeoutMs,
    );
  }

  #send(): void {
    const batch = this.#waiting;
    if (batch === undefined || this.#inFlight !== undefined || this.#worker === undefined) return;
    this.#waiting = undefined;
    this.#inFlight = batch;
    if (batch.texts.length > 0) this.#batchCount++;
    // Nothing of theirs is on its way: what is owed was refused, or its batch was given up and has been answered since.
    if (this.#owed.size > 0) batch.asked = [...this.#owed.keys()].slice(0, OWED_ASKED_MAX);
    const { timesMs, texts, classes, steps, asked } = batch;
    post(this.#worker, { kind: "append", timesMs, texts: texts.join("\n"), classes, steps, asked });
  }

  #told(reply: AuditWorkerReply): void {
    switch (reply.kind) {
      case "checkpoint_failed":
        return this.#options.onCheckpointFailed(
          new Fault("unavailable", `Cannot sign an audit checkpoint: ${reply.reason}`),
        );
      case "signed":
        this.#remembered = { ...this.#remembered, signed: reply.head };
        return this.#options.onSigned?.(reply.head);
      case "sealing_key_worn":
        return this.#options.onSealingKeyWorn();
      default:
        this.#answered(reply);
    }
  }

  #answered(reply: Extract<AuditWorkerReply, { kind: "done" | "failed" }>): void {
    const batch = this.#inFlight;
    this.#inFlight = undefined;
    if (reply.kind === "done") {
      if (reply.reached !== undefined) this.#remembered = { ...this.#remembered, reached: reply.reached };
      this.#interrupted ??= reply.interrupted;
      this.#healthy = true;
      this.#retryDelayMs = RETRY_FIRST_MS;
      if (batch !== undefined) {
        settle(batch);
        this.#payOwed(batch, reply.open);
      }
    } else {
      if (batch !== undefined) this.#fail(batch, reply.reason);
      this.#failed();
    }
    this.#send();
    if (this.#healthy) this.#askForOwed();
  }

  #fail(batch: Batch, reason: string): void {
    this.#owe(batch.stepEvents.splice(0));
    settle(batch, reason);
  }

  /** No answer in time: whoever waits is told so. The batch stays in flight, for its late answer says how it stands. */
  #expire(batch: Batch): void {
    batch.expired = true;
    this.#fail(batch, `no answer within ${this.#options.timeoutMs} ms`);
    this.#dropWaiting("the disk does not answer");
    this.#failed();
  }

  #died(worker: Worker, message: string): void {
    worker.terminate();
    if (worker !== this.#worker) return;
    this.#worker = undefined;
    if (this.#inFlight !== undefined) this.#fail(this.#inFlight, `its worker died: ${message}`);
    this.#inFlight = undefined;
    this.#dropWaiting("its worker died");
    this.#failed();
  }

  #dropWaiting(reason: string): void {
    if (this.#waiting !== undefined) this.#fail(this.#waiting, reason);
    this.#waiting = undefined;
  }

  /** Unhealthy from now on, until a batch or a probe succeeds. */
  #failed(): void {
    this.#healthy = false;
    if (this.#closing !== undefined || this.#retryTimer !== undefined) return;
    this.#retryTimer = setTimeout(() => this.#retry(), this.#retryDelayMs);
    this.#retryDelayMs = Math.min(this.#retryDelayMs * 2, RETRY_MAX_MS);
  }

  /** Readiness must come back without traffic, since an unhealthy server may get none. */
  #retry(): void {
    this.#retryTimer = undefined;
    if (this.#healthy) return;
    this.#worker ??= this.#start();
    // A batch that is on its way, or about to be, answers the question by itself.
    if (this.#inFlight !== undefined || this.#waiting !== undefined) return;
    this.probe(true).catch(() => {}); // #answered has taken note
  }
}

function newBatch(): Batch {
  return {
    asked: [],
    stepEvents: [],
    timesMs: [],
    texts: [],
    classes: [],
    steps: [],
    characters: 0,
    settled: Promise.withResolvers<void>(),
    timer: undefined,
    isSettled: false,
    expired: false,
  };
}

function settle(batch: Batch, failure?: string): void {
  clearTimeout(batch.timer);
  batch.isSettled = true;
  if (failure === undefined) batch.settled.resolve();
  else batch.settled.reject(unavailable(failure));
}

function unavailable(state: string): Fault {
  return new Fault("unavailable", `Cannot record in the audit trail: ${state}`);
}

function refusal(state: string): Promise<never> {
  return Promise.reject(unavailable(state));
}

function post(worker: Worker, request: AuditWorkerRequest): void {
  worker.postMessage(request);
}
