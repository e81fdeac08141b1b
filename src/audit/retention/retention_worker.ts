// Retention worker: takes old entries out of closed segments, off the server's thread. It lives for one pass.
/// <reference no-default-lib="true" />
/// <reference lib="deno.worker" />
import { reasonOf } from "../trail/segment_files.ts";
import type { StubFacts } from "../trail/segment_stub.ts";
import { type DueSegment, dueSegments, type Horizon, putStub, replaceSegment } from "./thin_segment.ts";

/** What the worker is told; each message has one answer. */
export type RetentionRequest =
  /** Looks through the segments before that number, and answers like `next`. */
  | {
    readonly kind: "begin";
    readonly directory: string;
    readonly horizon: Horizon;
    readonly before: number;
  }
  /** Takes out what was prepared. */
  | { readonly kind: "commit"; readonly facts: Pick<StubFacts, "segment" | "file">; readonly note: string }
  /** Goes on to the next segment; what was prepared and not taken out stays. */
  | { readonly kind: "next" };

/** The next segment of which entries may go · there is none · done · why not. */
export type RetentionReply =
  | { readonly kind: "due"; readonly segment: DueSegment }
  | { readonly kind: "over" }
  | { readonly kind: "done" }
  | { readonly kind: "failed"; readonly reason: string };

let directory = "";
let segments: Generator<DueSegment> | undefined;

self.onmessage = ({ data }: MessageEvent<RetentionRequest>) => {
  self.postMessage(answer(data));
};

function answer(request: RetentionRequest): RetentionReply {
  try {
    if (request.kind === "commit") {
      putStub(directory, request.facts.segment, request.note);
      replaceSegment(directory, request.facts);
      return { kind: "done" };
    }
    if (request.kind === "begin") {
      directory = request.directory;
      segments = dueSegments(directory, request.horizon, request.before);
    }
    const segment = segments?.next();
    return segment === undefined || segment.done === true
      ? { kind: "over" }
      : { kind: "due", segment: segment.value };
  } catch (thrown) {
    return { kind: "failed", reason: reasonOf(thrown) };
  }
}
