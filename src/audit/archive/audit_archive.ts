// Audit archive: finds entries of the trail for auditors, in a worker that takes no time from requests.
import { Fault } from "../../faults/fault.ts";
import type { Log } from "../../telemetry/log.ts";
import { reasonOf } from "../trail/segment_files.ts";
import type { ArchiveFolders } from "./archive_follower.ts";
import type { ExportForm } from "./archive_search.ts";
import type { ArchiveAnswers, ArchiveQuestion, ArchiveReply, ArchiveRequest } from "./archive_worker.ts";
import type { AuditQuery } from "./audit_query.ts";

/** What was found. */
export type { ArchivedEntry, ExportForm } from "./archive_search.ts";

/** Finds entries. Every method throws Fault `unavailable` when trail or index cannot be read, `overloaded` when too many ask. */
export interface AuditArchive {
  /**
   * Entries that fit, the newest first. A page may be short, or empty, though there is more: then `next` says where to go on.
   *
   * @param after only what is older than this number; undefined: from the newest
   * @param limit at least 1
   */
  page(
    query: AuditQuery,
    page: { readonly after: number | undefined; readonly limit: number },
  ): Promise<ArchiveAnswers["page"]>;
  /** All entries that fit, the oldest first, as text in pieces: up to the newest at the moment of the call. */
  export(query: AuditQuery, form: ExportForm): Promise<ExportPieces>;
  /** The last signed checkpoint (C2SP signed note); undefined when there is none yet. Nothing here verifies it. */
  newestCheckpoint(): Promise<string | undefined>;
  /** The keys that verify checkpoints, one a line, the newest last: those of the store, whatever stands beside the trail. */
  verifierKeys(): Promise<string>;
  /** Ends the worker. What is asked is refused. Never rejects. */
  close(): Promise<void>;
}

/** The text of an export. Whoever calls no more needs to do nothing else. */
export interface ExportPieces {
  /** The next piece; undefined after the last. */
  next(): Promise<Uint8Array<ArrayBuffer> | undefined>;
}

/** What the archive is made of. */
export interface AuditArchiveOptions {
  readonly folders: ArchiveFolders;
  /** 32 bytes, for the words in the index: with another key it is made anew. */
  readonly key: Uint8Array;
  /** Open sealed events, and verify checkpoints. */
  readonly keys: {
    verifierKeys(): string;
    sealingKeys(): ReadonlyMap<string, Uint8Array>;
    onChange(changed: () => void): void;
  };
  readonly log: Log;
  /** Whoever asks before gets it started at once. */
  readonly startAfterMs?: number;
}

/** Beside the rest of the start: a process that has served for a while may have no file descriptor left, and starts no worker then. */
const START_AFTER_MS = 0;
const RESTART_AFTER_MS = 10_000;
/** Far beyond what a question takes: the disk hangs. */
const TIMEOUT_MS = 30_000;
const WAITING_MAX = 64;
const FAREWELL_MS = 2_000;

/** Makes the archive. Its worker starts in the next turn of the event loop, or with the first question. */
export function openAuditArchive(options: AuditArchiveOptions): AuditArchive {
  return new WorkerArchive(options);
}

interface Waiting {
  readonly settled: PromiseWithResolvers<ArchiveAnswers[keyof ArchiveAnswers]>;
  readonly timer: ReturnType<typeof setTimeout>;
}

class WorkerArchive implements AuditArchive {
  readonly #options: AuditArchiveOptions;
  readonly #waiting = new Map<number, Waiting>();
  #worker: Worker | undefined;
  #startTimer: ReturnType<typeof setTimeout> | undefined;
  #asked = 0;
  #closing: Promise<void> | undefined;
  #closed: (() => void) | undefined;

  constructor(options: AuditArchiveOptions) {
    this.#options = options;
    this.#startTimer = setTimeout(() => this.#start(), options.startAfterMs ?? START_AFTER_MS);
    options.keys.onChange(() => this.#giveKeys(false));
  }

  page(
    query: AuditQuery,
    { after, limit }: { readonly after: number | undefined; readonly limit: number },
  ): Promise<ArchiveAnswers["page"]> {
    return this.#ask({ kind: "page", query, after, limit });
  }

  async export(query: AuditQuery, form: ExportForm): Promise<ExportPieces> {
    const last = await this.#ask({ kind: "newest" });
    let after: number | undefined = 0;
    return {
      next: async () => {
        while (after !== undefined) {
          const piece = await this.#ask({ kind: "piece", query, form, after, last });
          after = piece.next;
          // Many entries may have been looked at in vain.
          if (piece.text.length > 0) return piece.text;
        }
        return undefined;
      },
    };
  }

  newestCheckpoint(): Promise<string | undefined> {
    return this.#ask({ kind: "checkpoint" });
  }

  verifierKeys(): Promise<string> {
    return Promise.resolve(this.#options.keys.verifierKeys());
  }

  close(): Promise<void> {
    return this.#closing ??= this.#close();
  }

  async #close(): Promise<void> {
    clearTimeout(this.#startTimer);
    this.#refuseAll("it is closed");
    const worker = this.#worker;
    if (worker === undefined) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    // A worker that hangs would not hear it.
    const timer = setTimeout(resolve, FAREWELL_MS);
    this.#closed = resolve;
    this.#post({ kind: "close" });
    await promise;
    clearTimeout(timer);
    worker.terminate();
    this.#worker = undefined;
  }

  #ask<Question extends ArchiveQuestion>(question: Question): Promise<ArchiveAnswers[AnswerName<Question>]> {
    if (this.#closing !== undefined) return Promise.reject(unavailable("it is closed"));
    if (this.#waiting.size >= WAITING_MAX) {
      return Promise.reject(
        new Fault("overloaded", `Cannot search the audit trail: ${WAITING_MAX} questions wait already`),
      );
    }
    this.#start();
    const id = ++this.#asked;
    const settled = Promise.withResolvers<ArchiveAnswers[keyof ArchiveAnswers]>();
    const timer = setTimeout(() => {
      this.#waiting.delete(id);
      settled.reject(unavailable(`no answer within ${TIMEOUT_MS} ms`));
    }, TIMEOUT_MS);
    this.#waiting.set(id, { settled, timer });
    this.#post({ kind: "ask", id, question });
    return settled.promise as Promise<ArchiveAnswers[AnswerName<Question>]>;
  }

  #start(): void {
    clearTimeout(this.#startTimer);
    if (this.#worker !== undefined || this.#closing !== undefined) return;
    const { folders, key, keys } = this.#options;
    let worker: Worker;
    try {
      worker = startArchiveWorker(folders);
    } catch (thrown) {
      return this.#fail(reasonOf(thrown));
    }
    this.#worker = worker;
    worker.onmessage = ({ data }: MessageEvent<ArchiveReply>) => this.#hear(data);
    worker.onerror = (event) => {
      event.preventDefault(); // else it ends the server
      worker.terminate();
      if (worker !== this.#worker) return;
      this.#worker = undefined;
      this.#closed?.();
      this.#fail(`its worker died: ${event.message}`);
    };
    this.#post({ kind: "open", folders, key, sealingKeys: keys.sealingKeys() });
  }

  #fail(reason: string): void {
    this.#refuseAll(reason);
    this.#options.log.write("warn", "audit.archive_failed", { reason });
    if (this.#closing === undefined) this.#startTimer = setTimeout(() => this.#start(), RESTART_AFTER_MS);
  }

  #hear(reply: ArchiveReply): void {
    switch (reply.kind) {
      case "answer":
        return this.#settle(reply.id, ({ resolve }) => resolve(reply.value));
      case "refusal": {
        const { fault, reason, details } = reply;
        return this.#settle(reply.id, ({ reject }) => reject(new Fault(fault, reason, details)));
      }
      case "keys_wanted":
        return this.#giveKeys(true);
      case "state": {
        const { log } = this.#options;
        if (reply.isUp) log.write("info", "audit.archive_works", {});
        else log.write("warn", "audit.archive_failed", { reason: reply.reason });
        return;
      }
      case "closed":
        this.#closed?.();
    }
  }

  #settle(id: number, settle: (settled: Waiting["settled"]) => void): void {
    const waiting = this.#waiting.get(id);
    if (waiting === undefined) return; // nobody waits any more
    this.#waiting.delete(id);
    clearTimeout(waiting.timer);
    settle(waiting.settled);
  }

  #refuseAll(reason: string): void {
    for (const id of [...this.#waiting.keys()]) this.#settle(id, ({ reject }) => reject(unavailable(reason)));
  }

  #giveKeys(asked: boolean): void {
    this.#post({ kind: "keys", sealingKeys: this.#options.keys.sealingKeys(), asked });
  }

  #post(request: ArchiveRequest): void {
    this.#worker?.postMessage(request);
  }
}

type AnswerName<Question extends ArchiveQuestion> = Question["kind"];

/** It reads the trail and writes nothing but its index. */
function startArchiveWorker({ directory, checkpointDirectory, indexDirectory }: ArchiveFolders): Worker {
  return new Worker(new URL("./archive_worker.ts", import.meta.url), {
    type: "module",
    name: "archive",
    deno: {
      permissions: { read: [directory, checkpointDirectory, indexDirectory], write: [indexDirectory] },
    },
  });
}

function unavailable(state: string): Fault {
  return new Fault("unavailable", `Cannot search the audit trail: ${state}`);
}
