// Upstream fault: a Fault that knows at which point a call failed, and what follows from it for retries and for the breaker.
import { Fault, type FaultDetails, type FaultKind } from "../../faults/fault.ts";

/**
 * What the kind alone does not tell. `before_answer`: no byte of an answer had come. `refusal`: the upstream is well, answered
 * this very request with no, and would do so again.
 */
export type FaultOrigin = "before_answer" | "refusal";

/** A Fault of a call to an upstream. It never holds a word of what the upstream sent. */
export class UpstreamFault extends Fault {
  readonly origin: FaultOrigin | undefined;

  constructor(kind: FaultKind, reason: string, origin?: FaultOrigin, details: FaultDetails = {}) {
    super(kind, reason, details);
    this.origin = origin;
  }
}

/** Where a request may be sent again of which nothing was answered yet. */
export function retryPlace(fault: Fault): "anywhere" | "elsewhere" | "nowhere" {
  const origin = fault instanceof UpstreamFault ? fault.origin : undefined;
  switch (fault.kind) {
    case "upstream_unreachable":
      return "anywhere";
    case "upstream_failed":
      return origin === "refusal" ? "nowhere" : "anywhere";
    // Its Retry-After is a second or more: longer than any backoff.
    case "overloaded":
    case "upstream_answer_invalid":
      return "elsewhere";
    case "upstream_timeout":
      return origin === "before_answer" ? "elsewhere" : "nowhere";
    default:
      return "nowhere";
  }
}

/** What a fault tells the breaker. An upstream that refuses is alive; one that is busy, or that nobody waited for, says nothing. */
export function breakerOutcome(fault: Fault): "success" | "failure" | "neutral" {
  switch (fault.kind) {
    case "input_refused":
    case "context_length_exceeded":
      return "success";
    case "upstream_failed":
      return fault instanceof UpstreamFault && fault.origin === "refusal" ? "success" : "failure";
    case "upstream_unreachable":
    case "upstream_answer_invalid":
    case "upstream_timeout":
      return "failure";
    default:
      return "neutral";
  }
}
