// Upstream fault: a Fault that knows at which point a call failed, and what follows from it for retries and for the breaker.
import { Fault, type FaultDetails, type FaultKind } from "../../faults/fault.ts";

/**
 * What the kind alone does not tell. `on_the_way`: the upstream was not reached, or was lost, whatever the request asked of it.
 * `before_answer`: no byte of an answer had come. `refusal`: the upstream is well, answered this very request with no, and would
 * do so again.
 */
export type FaultOrigin = "on_the_way" | "before_answer" | "refusal";

/** A Fault of a call to an upstream. It never holds a word of what the upstream sent. */
export class UpstreamFault extends Fault {
  readonly origin: FaultOrigin | undefined;

  constructor(kind: FaultKind, reason: string, origin?: FaultOrigin, details: FaultDetails = {}) {
    super(kind, reason, details);
    this.origin = origin;
  }
}

/**
 * Where a request may be sent again of which nothing was answered yet. `elsewhere_once`: more than one such fault speaks against
 * the request itself.
 */
export function retryPlace(fault: Fault): "anywhere" | "elsewhere" | "elsewhere_once" | "nowhere" {
  const origin = fault instanceof UpstreamFault ? fault.origin : undefined;
  switch (fault.kind) {
    case "upstream_unreachable":
      return "anywhere";
    case "upstream_failed":
      return origin === "refusal" ? "nowhere" : origin === "on_the_way" ? "anywhere" : "elsewhere_once";
    case "upstream_answer_invalid":
      return "elsewhere_once";
    // Its Retry-After is a second or more: longer than any backoff.
    case "overloaded":
      return "elsewhere";
    case "upstream_timeout":
      return origin === undefined ? "nowhere" : "elsewhere";
    default:
      return "nowhere";
  }
}

/**
 * What a fault tells the breaker. Only not being reached counts against an upstream: errors, nonsense and silence may be the doing of
 * one caller's request, which must not take a model from all; that an engine hangs, the health checks find out.
 */
export function breakerOutcome(fault: Fault): "success" | "failure" | "neutral" {
  switch (fault instanceof UpstreamFault ? fault.origin : undefined) {
    case "on_the_way":
      return "failure";
    case "refusal":
      return "success";
    default:
      return "neutral";
  }
}
