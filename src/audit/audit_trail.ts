// Audit trail: events become durable before the act they speak of; when they cannot, the act must not happen.
import { setImmediate } from "node:timers";
import { Fault } from "../faults/fault.ts";
import type { Clock } from "../time/clock.ts";
import type { AuditEvent } from "./audit_event.ts";
import type { AuditWorkerReply, AuditWorkerRequest } from "./audit_worker.ts";
import { eventText } from "./event_text.ts";
import { reasonOf } from "./segment_files.ts";

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
  /** False from a failure until it is known, by a record or by the trail's own probe, that writing works again. */
  healthy(): boolean;
  /** Refuses new events, waits for those already taken, frees everything. Never rejects. */
  close(): Promise<void>;
}

/** The trail on disk. */
export interface DurableAuditTrail extends AuditTrail {
  /** How many batches were sent to the disk so far, probes left out: one fsync each. */
  batchCount(): number;
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
}

/** Where the trail of a data folder is. */
export function auditFolders(
  dataDir: string,
): Pick<AuditTrailOptions, "directory" | "checkpointDirectory"> {
  return { directory: `${dataDir}/audit`, checkpointDirectory: `${dataDir}/audit-checkpoint` };
}

/** UTF-16 code units of all events that wait; bounds memory where `waitingMax` counts events. */
const WAITING_CHARACTERS_MAX = 1024 * 1024;
const RETRY_FIRST_MS = 100;
const RETRY_MAX_MS = 5_000;

/**
 * Opens the trail: repairs a torn tail, checks the end of the chain against the checkpoint, finds out whether writing
 * works. It takes as long as the disk needs; `timeoutMs` does not bound it.
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
  } catch (thrown) {
    await trail.close();
    throw thrown;
  }
  return trail;
}

function startAuditWorker({ directory, checkpointDirectory }: AuditTrailOptions): Worker {
  const directories = [directory, checkpointDirectory];
  return new Worker(new URL("./audit_worker.ts", import.meta.url), {
    type: "module",
    name: "audit",
    deno: { permissions: { read: directories, write: directories } },
  });
}

/** Events that become durable together, or not at all. */
interface Batch {
  readonly timesMs: number[];
  readonly texts: string[];
  characters: number;
  /** One promise for all its events: they share their fate. */
  readonly settled: PromiseWithResolvers<void>;
  timer: ReturnType<typeof setTimeout> | undefined;
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
  #batchCount = 0;
  #healthy = false;
  #retryTimer: ReturnType<typeof setTimeout> | undefined;
  #retryDelayMs = RETRY_FIRST_MS;
  #closing: Promise<void> | undefined;

  constructor(options: AuditTrailOptions, startWorker: (options: AuditTrailOptions) => Worker) {
    this.#options = options;
    this.#startWorker = startWorker;
    this.#worker = this.#start();
  }

  record(event: AuditEvent): Promise<void> {
    // Whoever comes while the trail is known not to answer is refused at once: nothing piles up.
    if (this.#closing !== undefined) return refusal("it is closed");
    if (this.#worker === undefined) return refusal("its worker is being replaced");
    if (this.#inFlight?.expired === true) return refusal("the disk does not answer");
    let text: string;
    try {
      text = eventText(event);
    } catch (thrown) {
      return Promise.reject(thrown);
    }
    const batch = this.#waiting ?? this.#openBatch();
    if (
      batch.texts.length >= this.#options.waitingMax ||
      batch.characters + text.length > WAITING_CHARACTERS_MAX
    ) {
      return refusal(`${batch.texts.length} events wait already`);
    }
    batch.timesMs.push(this.#options.clock.now());
    batch.texts.push(text);
    batch.characters += text.length;
    return batch.settled.promise;
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
    worker.onmessage = () => resolve();
    worker.onerror = (event) => {
      event.preventDefault();
      resolve();
    };
    post(worker, { kind: "close" });
    return promise.finally(() => clearTimeout(timer));
  }

  #start(): Worker {
    const { directory, checkpointDirectory, segmentBytesMax } = this.#options;
    const worker = this.#startWorker(this.#options);
    worker.onmessage = ({ data }: MessageEvent<AuditWorkerReply>) => this.#answered(data);
    worker.onerror = (event) => {
      event.preventDefault(); // else it ends the server
      this.#died(worker, event.message);
    };
    post(worker, { kind: "open", options: { directory, checkpointDirectory, segmentBytesMax } });
    return worker;
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
    batch.timer = setTimeout(() => this.#expire(batch), this.#options.timeoutMs);
  }

  #send(): void {
    const batch = this.#waiting;
    if (batch === undefined || this.#inFlight !== undefined || this.#worker === undefined) return;
    this.#waiting = undefined;
    this.#inFlight = batch;
    if (batch.texts.length > 0) this.#batchCount++;
    post(this.#worker, { kind: "append", timesMs: batch.timesMs, texts: batch.texts.join("\n") });
  }

  #answered(reply: AuditWorkerReply): void {
    const batch = this.#inFlight;
    this.#inFlight = undefined;
    if (reply.ok) {
      this.#healthy = true;
      this.#retryDelayMs = RETRY_FIRST_MS;
      if (batch !== undefined) settle(batch);
    } else {
      if (batch !== undefined) settle(batch, reply.reason);
      this.#failed();
    }
    this.#send();
  }

  /** No answer in time: whoever waits is told so. The batch stays in flight, for its late answer says how it stands. */
  #expire(batch: Batch): void {
    batch.expired = true;
    settle(batch, `no answer within ${this.#options.timeoutMs} ms`);
    this.#dropWaiting("the disk does not answer");
    this.#failed();
  }

  #died(worker: Worker, message: string): void {
    worker.terminate();
    if (worker !== this.#worker) return;
    this.#worker = undefined;
    if (this.#inFlight !== undefined) settle(this.#inFlight, `its worker died: ${message}`);
    this.#inFlight = undefined;
    this.#dropWaiting("its worker died");
    this.#failed();
  }

  #dropWaiting(reason: string): void {
    if (this.#waiting !== undefined) settle(this.#waiting, reason);
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
    timesMs: [],
    texts: [],
    characters: 0,
    settled: Promise.withResolvers<void>(),
    timer: undefined,
    expired: false,
  };
}

function settle(batch: Batch, failure?: string): void {
  clearTimeout(batch.timer);
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
