// Route: one row of the route table. Path, policy, schemas and handler stand together; nothing is served without a row.
import type { z } from "@hono/zod-openapi";
import type { Action } from "../access/action.ts";
import type { Fault, FaultKind } from "../faults/fault.ts";
import type { FaultRow } from "../faults/fault_table.ts";
import type { JsonValue } from "../encoding/canonical_json.ts";
import type { AnswerStream } from "../engines/answer_stream.ts";
import type { Exchange } from "./exchange.ts";
import type { BodyBounds } from "./middleware/body_pieces.ts";

/** Who may call a route. There is no default: a route without a policy does not compile, and the server does not start. */
export type Policy =
  /** Anyone, unauthenticated; leaves no audit record. */
  | { readonly kind: "public" }
  /** Anyone, in order to become someone; under the sign-in rate; the handler records what became of it. */
  | { readonly kind: "sign_in" }
  /** A client, which the handler authenticates by what the body or the header brings (RFC 6749 §2.3); under the token rate. */
  | { readonly kind: "client" }
  /** A principal whose roles give the action. */
  | { readonly kind: "action"; readonly action: Action }
  /** The app's own rows behind paths and methods that do not exist; none of the route table. */
  | { readonly kind: "nothing" };

/** How one family of clients reads errors. */
export interface Dialect {
  readonly name: "problem" | "openai" | "anthropic" | "oip" | "oauth";
  readonly errorType: string;
  /** The header in which its clients send a bare token where they send no `Authorization`. */
  readonly tokenHeader?: string;
  /** The error body; `row` gives the public words. */
  errorBody(fault: Fault, row: FaultRow, requestId: string): JsonValue;
}

/** What a handler returns: at most one of `body`, `bytes` and `stream`. */
export interface Answer {
  readonly status: number;
  /** Serialised as JSON; undefined for none. */
  readonly body?: unknown;
  /** Sent as they are; the headers name their media type. */
  readonly bytes?: Uint8Array<ArrayBuffer>;
  /** Sent as they come, at the pace of the client; the headers name their media type. */
  readonly stream?: BodyStream;
  readonly headers?: Readonly<Record<string, string>>;
}

/** A body in pieces. Where `next()` throws, the transfer is broken off, which is all that can be said by then. */
export interface BodyStream extends AnswerStream<Uint8Array> {
  /** After the end: the Fault that ended it early, for the log. */
  brokenBy(): Fault | undefined;
}

/** How a body that is no plain JSON is announced, read and described. */
export interface BodyForm<Body> {
  /** For the API description. */
  readonly mediaType: string;
  /** For the API description. */
  readonly schema: z.ZodType;
  /** Refuses a body by what its headers say of it: media type, encoding, length. Nothing is read yet. */
  requireAnnounced(request: Request, bounds: BodyBounds): void;
  /**
   * Where the body is passed on as it comes: how much of it is held in any case, and counts as a body under way. What the form
   * holds beyond that it has to bound by itself. Absent: all of it is held.
   */
  readonly heldBytesMax?: number;
  /**
   * Reads it, strictly and within bounds.
   *
   * @param caller who sends it, in so far as callers share memory
   */
  read(request: Request, bounds: BodyBounds, caller: string): Promise<Body>;
}

/** What the API description says of one answer. */
export interface AnswerDescription {
  readonly description: string;
  readonly schema?: z.ZodType;
  /** Default: application/json. */
  readonly mediaType?: string;
}

/** One row. */
export interface Route<Body = unknown> {
  readonly method: "GET" | "POST" | "PUT" | "PATCH" | "DELETE";
  /** With parameters as `{name}` (OpenAPI). */
  readonly path: string;
  readonly summary: string;
  readonly policy: Policy;
  readonly dialect: Dialect;
  /** False for probes only: health must answer however busy an address is. */
  readonly rated: boolean;
  /** True where the act behind it takes the user's rate, together with all other limits and in one decision. */
  readonly admits?: true;
  /** The strict schema of the query; absent where the route takes none. What it holds is in the exchange. */
  readonly query?: z.ZodType;
  /** The strict schema of the JSON body; absent where the route takes none. */
  readonly body?: z.ZodType<Body>;
  /** Instead of `body`, where the body is no plain JSON. */
  readonly bodyForm?: BodyForm<Body>;
  /** Instead of the server's own limit: less where the body can only be small, more where it carries media. */
  readonly bodyBytesMax?: number;
  readonly answers: Readonly<Record<number, AnswerDescription>>;
  /** Faults that this route can answer besides those that its policy and body bring. */
  readonly faults: readonly FaultKind[];
  handle(exchange: Exchange, body: Body): Promise<Answer> | Answer;
}

/** A row in the table: the type of its body is known only to itself. */
export type AnyRoute = Route<never>;

/** Checks a row's types and gives it to the table. */
export function defineRoute<Body>(route: Route<Body>): AnyRoute {
  return route as unknown as AnyRoute;
}
