// Archive worker: keeps the index of the trail and searches in it, so that neither takes the server's thread.
/// <reference no-default-lib="true" />
/// <reference lib="deno.worker" />
import { Fault, type FaultKind, toFault } from "../../faults/fault.ts";
import { systemClock } from "../../time/clock.ts";
import { reasonOf } from "../trail/segment_files.ts";
import { type ArchiveFolders, ArchiveFollower } from "./archive_follower.ts";
import { isDamage } from "./archive_index.ts";
import {
  type ArchivePage,
  type ExportForm,
  type ExportPiece,
  exportPiece,
  findPage,
} from "./archive_search.ts";
import type { AuditQuery } from "./audit_query.ts";
import { readNewestCheckpoint } from "./newest_checkpoint.ts";

/** What the worker is asked, and what it answers to that. */
export interface ArchiveAnswers {
  /** `unsearched`: durable entries that are not in the index yet, the newest of all. */
  readonly page: ArchivePage & { readonly unsearched: number };
  /** The number of the newest entry that an export can have; waits for the index to have it. */
  readonly newest: number;
  readonly piece: ExportPiece;
  readonly checkpoint: string | undefined;
}

/** A question. */
export type ArchiveQuestion =
  | {
    readonly kind: "page";
    readonly query: AuditQuery;
    readonly after: number | undefined;
    readonly limit: number;
  }
  | { readonly kind: "newest" }
  | {
    readonly kind: "piece";
    readonly query: AuditQuery;
    readonly form: ExportForm;
    readonly after: number;
    readonly last: number;
  }
  | { readonly kind: "checkpoint" };

/** What the worker is told; `open` comes first. */
export type ArchiveRequest =
  | {
    readonly kind: "open";
    readonly folders: ArchiveFolders;
    /** For the words in the index. */
    readonly key: Uint8Array;
    readonly sealingKeys: ReadonlyMap<string, Uint8Array>;
  }
  /** Sent unasked when they have changed, and as the answer to `keys_wanted`. */
  | { readonly kind: "keys"; readonly sealingKeys: ReadonlyMap<string, Uint8Array>; readonly asked: boolean }
  | { readonly kind: "ask"; readonly id: number; readonly question: ArchiveQuestion }
  | { readonly kind: "close" };

/** What the worker says. */
export type ArchiveReply =
  | { readonly kind: "answer"; readonly id: number; readonly value: ArchiveAnswers[keyof ArchiveAnswers] }
  | {
    readonly kind: "refusal";
    readonly id: number;
    readonly fault: FaultKind;
    readonly reason: string;
    readonly details: { readonly detail?: string; readonly retryAfterSeconds?: number };
  }
  | { readonly kind: "keys_wanted" }
  /** Whether the index can be kept up at present. */
  | { readonly kind: "state"; readonly isUp: boolean; readonly reason: string }
  | { readonly kind: "closed" };

/** A tenth of a core, while nobody waits. */
const REST_PER_WORK = 9;
const REST_MS_MIN = 20;
const IDLE_MS = 500;
const RETRY_FIRST_MS = 1000;
const RETRY_MAX_MS = 60_000;
/** How long a question waits for the newest entries. */
const CATCH_UP_MS_MAX = 2000;

let follower: ArchiveFollower | undefined;
let folders: ArchiveFolders | undefined;
/** Ends a rest. */
let wake: (() => void) | undefined;
/** Settled by the answer to `keys_wanted`. */
let keysGiven: (() => void) | undefined;
/** The step under way: whoever wants one while it waits for keys waits as well. */
let stepping: Promise<boolean> | undefined;
let closing = false;
let isUp = true;

self.onmessage = ({ data }: MessageEvent<ArchiveRequest>) => {
  switch (data.kind) {
    case "open":
      folders = data.folders;
      follower = new ArchiveFollower(data.folders, data.key, data.sealingKeys);
      void follow();
      return;
    case "keys":
      follower?.useKeys(data.sealingKeys);
      if (data.asked) keysGiven?.();
      return;
    case "ask":
      void answer(data.id, data.question);
      return;
    case "close":
      closing = true;
      wake?.();
      follower?.close();
      post({ kind: "closed" });
  }
};

/** For as long as the worker lives. */
async function follow(): Promise<void> {
  let retryMs = RETRY_FIRST_MS;
  while (!closing) {
    const startMs = systemClock.monotonic();
    try {
      const isMore = await step();
      tell(true, "");
      retryMs = RETRY_FIRST_MS;
      const workMs = systemClock.monotonic() - startMs;
      await rest(Math.max(isMore ? REST_MS_MIN : IDLE_MS, workMs * REST_PER_WORK));
    } catch (thrown) {
      tell(false, reasonOf(thrown));
      await rest(retryMs);
      retryMs = Math.min(RETRY_MAX_MS, retryMs * 2);
    }
  }
}

function rest(ms: number): Promise<void> {
  if (closing) return Promise.resolve();
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    wake = () => {
      clearTimeout(timer);
      resolve();
    };
  });
}

/** One piece of work; whether there is more. */
function step(): Promise<boolean> {
  return stepping ??= stepNow().finally(() => stepping = undefined);
}

async function stepNow(): Promise<boolean> {
  for (;;) {
    if (closing) return false;
    const found = openFollower().step();
    if (typeof found === "string") return found === "again";
    // It may have been made this moment; where nobody has it, it is gone.
    const given = new Promise<void>((resolve) => keysGiven = resolve);
    post({ kind: "keys_wanted" });
    await given;
    openFollower().giveKeyUp(found.keyLacking);
  }
}

async function answer(id: number, question: ArchiveQuestion): Promise<void> {
  try {
    post({ kind: "answer", id, value: await valueOf(question) });
  } catch (thrown) {
    const { kind: fault, message: reason, details: { detail, retryAfterSeconds } } = faultOf(thrown);
    const details = {
      ...detail === undefined ? {} : { detail },
      ...retryAfterSeconds === undefined ? {} : { retryAfterSeconds },
    };
    post({ kind: "refusal", id, fault, reason, details });
  }
}

/** A damaged index is made anew, whoever finds it so. */
function faultOf(thrown: unknown): Fault {
  if (!isDamage(thrown)) return toFault(thrown);
  follower?.startAnew();
  return new Fault(
    "unavailable",
    `Cannot search the audit trail: its index is damaged (${reasonOf(thrown)})`,
    {
      detail: "The index of the trail is being made anew. Try again shortly.",
      retryAfterSeconds: 30,
    },
  );
}

async function valueOf(question: ArchiveQuestion): Promise<ArchiveAnswers[keyof ArchiveAnswers]> {
  switch (question.kind) {
    case "page": {
      // Only the first page can lack the newest.
      const isFirst = question.after === undefined;
      const unsearched = isFirst || openFollower().indexedTo() === 0 ? await catchUp() : 0;
      return { ...findPage(openFollower(), question.query, question, systemClock), unsearched };
    }
    case "newest":
      await catchUp();
      return openFollower().index.position.seq;
    case "piece":
      // Only a worker that took the place of another has nothing yet.
      if (openFollower().indexedTo() === 0) await catchUp();
      return exportPiece(openFollower(), question.query, question, systemClock);
    case "checkpoint":
      return readNewestCheckpoint(openFolders().checkpointDirectory);
  }
}

/** Brings the index up to what is durable at this moment, for a bounded time; returns how many entries it lacks then. */
async function catchUp(): Promise<number> {
  const endMs = systemClock.monotonic() + CATCH_UP_MS_MAX;
  const follower = openFollower();
  const durable = follower.reader.durable();
  const lacking = () => Math.max(0, durable - follower.indexedTo());
  try {
    while (lacking() > 0 && !closing && systemClock.monotonic() < endMs) {
      await step();
      // Others may ask meanwhile.
      await new Promise((resolve) => setTimeout(resolve, 0));
    }
  } catch (thrown) {
    // What is indexed can be searched all the same; the follower tells why there is no more.
    if (follower.indexedTo() === 0) throw thrown;
  }
  return lacking();
}

function tell(upNow: boolean, reason: string): void {
  if (upNow === isUp || closing) return;
  isUp = upNow;
  post({ kind: "state", isUp, reason });
}

function openFollower(): ArchiveFollower {
  if (follower === undefined || closing) throw notOpen();
  return follower;
}

function openFolders(): ArchiveFolders {
  if (folders === undefined) throw notOpen();
  return folders;
}

function notOpen(): Fault {
  return new Fault("unavailable", "Cannot search the audit trail: the archive is closed");
}

function post(reply: ArchiveReply): void {
  self.postMessage(reply);
}
