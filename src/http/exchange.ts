// Exchange: one request on its way through the gate, with what the steps have found out about it.
import type { RequestRecord } from "../audit/request_record.ts";
import { Fault } from "../faults/fault.ts";
import type { AddressBytes } from "../encoding/ip_address.ts";
import type { Principal } from "../access/principal.ts";
import type { LimitView } from "../limits/limit_policy.ts";
import type { InferenceContext } from "../inference/run_inference.ts";

/** One request. Steps of the gate fill it in order; handlers read it. */
export interface Exchange {
  /** Ours, never the client's. */
  readonly id: string;
  readonly request: Request;
  /** `Clock.monotonic()` when the request came, milliseconds. */
  readonly receivedMs: number;
  /** What limits count as one client. */
  readonly clientNetwork: string;
  /** The client's address. */
  readonly address: AddressBytes;
  /** Path parameters, decoded once. */
  readonly parameters: Readonly<Record<string, string>>;
  readonly record: RequestRecord;
  /** What its limits decided, for the headers of its answer. */
  readonly limits: LimitView[];
  /** Whether the act took the user's rate with its other limits. */
  admitted: boolean;
  /** Headers that the answer will carry, an error included. */
  readonly answerHeaders: Record<string, string>;
  /** What the route's schema made of the query; undefined where it has none. */
  query: unknown;
  principal: Principal | undefined;
}

/** The principal of a route whose policy demands one. */
export function principalOf(exchange: Exchange): Principal {
  if (exchange.principal === undefined) {
    throw new Fault("internal", "Cannot handle a request: its route let it pass without a principal");
  }
  return exchange.principal;
}

/**
 * What an inference has to know of the request behind it.
 *
 * @param requestTimeoutMs counted from when the request came
 */
export function inferenceContextOf(exchange: Exchange, requestTimeoutMs: number): InferenceContext {
  return {
    principal: principalOf(exchange),
    record: exchange.record,
    signal: exchange.request.signal,
    deadlineMs: exchange.receivedMs + requestTimeoutMs,
    network: exchange.clientNetwork,
    tellLimits(views) {
      exchange.admitted = true;
      exchange.limits.push(...views);
    },
  };
}
